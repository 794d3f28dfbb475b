// Small helps for every page. Pages work without it.
(function () {
  "use strict";
  var REFRESH_MS = 5000;

  // Times are rendered in UTC; show the reader's own.
  function localise(root) {
    root.querySelectorAll("time[datetime]:not([data-plain])").forEach(function (element) {
      var moment = new Date(element.getAttribute("datetime"));
      if (isNaN(moment)) { return; }
      element.title = element.textContent;
      element.textContent = moment.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
      element.setAttribute("data-plain", "");
    });
  }

  // Which of a fragment's details are open, and where the keyboard is, outlive its replacement.
  function replace(element, html) {
    var open = Array.prototype.map.call(element.querySelectorAll("details"), function (one) { return one.open; });
    var next = new DOMParser().parseFromString(html, "text/html").querySelector("[data-refresh]");
    if (!next) { return; }
    element.replaceChildren.apply(element, Array.prototype.slice.call(next.childNodes));
    element.querySelectorAll("details").forEach(function (one, at) { if (open[at]) { one.open = true; } });
    localise(element);
  }

  // <section data-refresh="/path">: fetched anew every few seconds while somebody looks.
  function refresh(element) {
    if (document.hidden || element.contains(document.activeElement)) { return; }
    fetch(element.getAttribute("data-refresh"), { headers: { "X-Refresh": "1", "Accept": "text/html" } })
      .then(function (answer) {
        if (answer.status === 401) { window.location.reload(); return null; }
        return answer.ok ? answer.text() : null;
      })
      .then(function (html) { if (html !== null) { replace(element, html); } })
      .catch(function () { /* the server is away: the next time, perhaps */ });
  }

  // <form data-confirm="Question?"> asks before it is sent.
  document.addEventListener("submit", function (event) {
    var question = event.target.getAttribute("data-confirm");
    if (question && !window.confirm(question)) { event.preventDefault(); }
  });

  document.addEventListener("DOMContentLoaded", function () {
    localise(document);
    document.querySelectorAll("[data-refresh]").forEach(function (element) {
      window.setInterval(refresh, REFRESH_MS, element);
    });
  });

  window.gateway = { localise: localise };
})();
