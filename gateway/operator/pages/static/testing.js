// Test events: reads a file into the field, and looks whether an awaited hit came.
(function () {
  "use strict";
  var LOOK_MS = 2000;

  function offerFile() {
    var field = document.getElementById("file-field");
    var file = document.getElementById("file");
    var area = document.getElementById("capture");
    var status = document.getElementById("file-status");
    if (!field || !file || !area) { return; }
    field.hidden = false;
    file.addEventListener("change", function () {
      var chosen = file.files[0];
      if (!chosen) { return; }
      if (chosen.size > Number(file.getAttribute("data-most"))) {
        status.textContent = "This file is too large for one request.";
        return;
      }
      chosen.text().then(function (text) {
        area.value = text;
        status.textContent = "Read. Look at it below, then show the steps.";
      }, function () { status.textContent = "The file cannot be read."; });
    });
  }

  function look(section, awaited) {
    if (document.hidden) { return; }
    fetch(section.getAttribute("data-state"), { headers: { "X-Refresh": "1", "Accept": "application/json" } })
      .then(function (answer) {
        if (answer.status === 401) { window.location.reload(); return null; }
        return answer.ok ? answer.json() : null;
      })
      .then(function (found) {
        if (!found) { return; }
        var changed = awaited.filter(function (source) { return found[source] !== ""; });
        if (!changed.length) { return; }
        var id = found[changed[0]];
        if (id && awaited.length === 1) {
          window.location.assign("/test-events/" + encodeURIComponent(id));
        } else {
          window.location.reload();
        }
      })
      .catch(function () { /* the gateway is away: the next time, perhaps */ });
  }

  function watch() {
    var section = document.getElementById("watching");
    if (!section) { return; }
    var awaited = Array.prototype.map.call(section.querySelectorAll('[data-awaited="yes"]'), function (one) {
      return one.getAttribute("data-source");
    });
    if (!awaited.length) { return; }
    var status = document.getElementById("watch-status");
    if (status) { status.textContent = "Waiting: this page goes on by itself when the hit comes."; }
    window.setInterval(look, LOOK_MS, section, awaited);
  }

  offerFile();
  watch();
})();
