// Live events: rows come as server-sent events; every text is set as text, never as markup.
(function () {
  "use strict";
  var table = document.getElementById("live");
  var template = document.getElementById("live-row");
  if (!table || !template || !window.EventSource) { return; }
  var body = document.getElementById("live-rows");
  var empty = document.getElementById("live-empty");
  var status = document.getElementById("live-status");
  var button = document.getElementById("live-pause");
  var most = Number(table.getAttribute("data-most"));
  var TEXTS = ["clock", "shown", "source", "event_name", "event_id", "destination", "note"];
  var KINDS = ["good", "warn", "bad", "neutral"];
  var waiting = new Map(); // while paused: rows by serial
  var paused = false;
  var skipped = 0;
  var state = "off";

  function say() {
    var text = { on: "Live.", lost: "The connection is lost; trying again.", off: "Connecting.",
      over: "The stream was refused: you may be logged out, or too many of these pages are open. Reload the page." }[state];
    if (paused) { text = "Paused" + (waiting.size ? ": " + waiting.size + " new or changed." : "."); }
    if (skipped && state === "on") { text += " " + skipped + " came too fast to be shown."; }
    if (status.textContent !== text) { status.textContent = text; }
    status.className = "live-status" + (paused ? "" : state === "on" ? " on" : state === "off" ? "" : " lost");
  }

  function fill(element, row) {
    var at = {};
    element.querySelectorAll("[data-field]").forEach(function (one) { at[one.getAttribute("data-field")] = one; });
    TEXTS.forEach(function (name) { at[name].textContent = String(row[name]); });
    at.link.setAttribute("href", "/live/" + Number(row.serial));
    at.clock.setAttribute("datetime", String(row.time));
    at.shown.className = "badge " + (KINDS.indexOf(row.kind) < 0 ? "neutral" : row.kind);
    at.test.hidden = !row.is_test;
    element.setAttribute("data-serial", String(Number(row.serial)));
  }

  function serialOf(element) { return Number(element.getAttribute("data-serial")); }

  // Rows come oldest first; a known one is changed where it stands, one older than all is not shown.
  function show(row) {
    var known = body.querySelector('tr[data-serial="' + Number(row.serial) + '"]');
    if (known) { fill(known, row); return; }
    var before = body.firstElementChild;
    while (before && serialOf(before) > row.serial) { before = before.nextElementSibling; }
    if (!before && body.childElementCount >= most) { return; }
    var element = template.content.firstElementChild.cloneNode(true);
    fill(element, row);
    body.insertBefore(element, before);
    while (body.childElementCount > most) { body.lastElementChild.remove(); }
  }

  function flush() {
    waiting.forEach(show);
    waiting.clear();
    var any = body.childElementCount > 0;
    table.hidden = !any;
    empty.hidden = any;
  }

  function take(message) {
    var told = JSON.parse(message.data);
    skipped += told.skipped;
    told.rows.forEach(function (row) {
      waiting.set(row.serial, row);
      if (waiting.size > most) { waiting.delete(waiting.keys().next().value); }
    });
    if (!paused) { flush(); }
    say();
  }

  var source = new EventSource(table.getAttribute("data-stream"));
  source.addEventListener("open", function () { state = "on"; say(); });
  source.addEventListener("rows", take);
  source.addEventListener("error", function () {
    state = source.readyState === EventSource.CLOSED ? "over" : "lost";
    say();
  });
  // a page that is kept for "back" must not keep its place
  window.addEventListener("pagehide", function () { source.close(); });
  window.addEventListener("pageshow", function (event) { if (event.persisted) { window.location.reload(); } });

  button.hidden = false;
  button.addEventListener("click", function () {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Go on" : "Pause";
    if (!paused) { flush(); }
    say();
  });
  say();
})();
