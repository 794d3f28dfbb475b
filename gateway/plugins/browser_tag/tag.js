/*
 * The tag of your own pages: sends events to the gateway that serves this file. Set-up and calls: docs/browser-tag.md.
 *
 *   <script src="https://tags.example.com/in/tag/tag.js" async></script>
 *   tg('add_to_cart', {value: 20, currency: 'EUR', items: [{id: 'mug', price: 10, quantity: 2}]});
 */
(function (window, document, navigator, location) {
  'use strict';

  var stub = window.tg;
  if (stub && stub.loaded) return;
  var script = document.currentScript || document.querySelector('script[src*="/tag.js"]');
  if (!script) return;

  var options = script.dataset;
  var endpoint = script.src.replace(/\/tag\.js.*$/, '');
  var YEAR = 31536000;
  var MOST_WAITING = 100;
  // What Pinterest's own tag calls the standard events: the API's names without "_", in any case.
  // Source: developers.pinterest.com, "Track conversion events in the API", column "Name in Tag".
  var PINTEREST = (' addpaymentinfo addtocart addtowishlist checkout contact custom customizeproduct findlocation ' +
    'initiatecheckout lead pagevisit schedule search signup starttrial submitapplication subscribe viewcategory ' +
    'viewcontent watchvideo ');
  var DATA = {
    value: 'value', currency: 'currency', order_id: 'order_id', num_items: 'order_quantity',
    search_string: 'search_query'
  };
  var LINE = {
    id: 'product_id', name: 'product_name', category: 'product_category', brand: 'product_brand',
    price: 'product_price', quantity: 'product_quantity'
  };

  var landing = location.search;
  var gpc = navigator.globalPrivacyControl === true;
  var allowed = options.consent !== 'required'; // false: wait for a choice; null: denied
  var consent = {};
  var user;
  var waiting = [];
  var visited = options.pageVisit === 'off';

  function isLimited() {
    return gpc || consent.sale_of_data === false;
  }

  // what fails costs its own field
  function quietly(read) {
    try {
      return read() || undefined;
    } catch (e) { /* cookies are forbidden here, or the URL is malformed */ }
  }

  // cookies: on the widest domain that takes them, so that the checkout's subdomain has them too

  function cookies(name) {
    return document.cookie.split('; ').filter(function (pair) {
      return pair.indexOf(name + '=') === 0;
    }).map(function (pair) {
      return pair.slice(name.length + 1);
    });
  }

  function setCookie(name, value) {
    var labels = location.hostname.split('.');
    var tail = '; Path=/; SameSite=Lax' + (location.protocol === 'https:' ? '; Secure' : '');
    document.cookie = name + '=; Max-Age=0' + tail;
    for (var i = labels.length - 2; i >= -1; i--) {
      var domain = i < 0 ? '' : '; Domain=' + labels.slice(i).join('.');
      document.cookie = name + '=' + value + '; Max-Age=' + (value ? YEAR : 0) + domain + tail;
      if (value && cookies(name).indexOf(value) >= 0) return;
    }
  }

  // When a click id was made, Unix seconds; 0 when it does not say. Text: v=2&…&t=<base64 of 8 bytes, big-endian>.
  function madeAt(clickId) {
    try {
      return bytes(/(?:^|&)t=([^&]+)/.exec(bytes(clickId))[1]).split('').reduce(function (sum, byte) {
        return sum * 256 + byte.charCodeAt(0);
      }, 0);
    } catch (e) {
      return 0;
    }
  }

  function bytes(base64url) {
    return atob(base64url.replace(/-/g, '+').replace(/_/g, '/'));
  }

  // The click id of the URL or of the cookie: the newer one, or the URL's when they do not say.
  function clickId() {
    var kept = cookies('_epik').reduce(function (best, one) {
      return best && madeAt(best) >= madeAt(one) ? best : one;
    }, '');
    var given = /[?&]epik=([\w.~%+\/=-]{1,1024})(?:[&#]|$)/i.exec(landing);
    given = given && decodeURIComponent(given[1]);
    if (!given || given === kept || !/^[\w.~+\/=-]+$/.test(given)) return kept;
    if (kept && madeAt(given) && madeAt(kept) > madeAt(given)) return kept;
    if (!isLimited()) setCookie('_epik', given);
    return given;
  }

  function clientId() {
    if (isLimited()) return;
    if (!cookies('_tgid')[0]) setCookie('_tgid', uuid());
    return cookies('_tgid')[0];
  }

  function uuid() {
    if (crypto.randomUUID) return crypto.randomUUID(); // on https only
    var hex = Array.prototype.map.call(crypto.getRandomValues(new Uint8Array(16)), function (byte, i) {
      byte = i === 6 ? byte & 15 | 64 : i === 8 ? byte & 63 | 128 : byte;
      return (byte + 256).toString(16).slice(1);
    }).join('');
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
  }

  function merge() {
    return Object.assign.apply(null, [{}].concat([].slice.call(arguments)));
  }

  function rename(from, names, to) {
    for (var name in names) if (from[name] != null) to[names[name]] = from[name];
    return to;
  }

  // Fire Pinterest's own tag with the same id; whether it is there.
  function handOver(event) {
    if (typeof window.pintrk !== 'function' || options.pintrk === 'off') return false;
    var plain = event.event_name.replace(/[_\s-]/g, '').toLowerCase();
    var data = {event_id: event.event_id};
    rename(event, DATA, data);
    try {
      if (event.items) data.line_items = [].concat(event.items).map(function (item) { return rename(item, LINE, {}); });
      if (isLimited() || event.limited_data) window.pintrk('set', {opt_out_type: 'LDP'});
      window.pintrk('track', PINTEREST.indexOf(' ' + plain + ' ') < 0 ? event.event_name : plain, data);
      return true;
    } catch (e) {
      return false;
    }
  }

  function send(event) {
    var said = merge(consent, event.consent, gpc && {gpc: true});
    event = merge({click_id: quietly(clickId), client_id: quietly(clientId), user: user}, event, {
      consent: Object.keys(said).length ? said : undefined,
      sent_at: Math.floor(Date.now() / 1000)
    });
    if (handOver(event)) event.tag = true;
    var body = JSON.stringify(event);
    try {
      // text/plain crosses origins without a preflight
      if (options.send !== 'fetch' && navigator.sendBeacon(endpoint, body)) return;
    } catch (e) { /* there is none */ }
    fetch(endpoint, {method: 'POST', body: body, keepalive: true, credentials: 'include'}).catch(function () {});
  }

  function track(name, fields) {
    if (allowed === null || (!allowed && waiting.length >= MOST_WAITING)) return;
    var event = merge({
      event_name: name,
      event_time: Math.floor(Date.now() / 1000),
      event_source_url: location.href,
      language: (navigator.language || '').split('-')[0] || undefined
    }, fields);
    event.event_id = event.event_id || uuid();
    if (allowed) send(event); else waiting.push(event);
  }

  // true and false are the choice; an object may name more: {marketing: true, sale_of_data: false}
  function choose(choice) {
    if (typeof choice !== 'object') choice = {marketing: choice};
    consent = merge(consent, choice);
    var words = [choice.marketing, choice.ad_storage, choice.ad_user_data];
    var has = function (flag, word) { return words.indexOf(flag) >= 0 || words.indexOf(word) >= 0; };
    if (has(false, 'denied')) {
      allowed = null;
      waiting = [];
      setCookie('_tgid', '');
      setCookie('_epik', '');
    } else if (has(true, 'granted')) {
      allowed = true;
      quietly(clickId);
      waiting.splice(0).forEach(send);
    }
  }

  function isVisit(name) {
    return String(name).replace(/[_\s-]/g, '').toLowerCase() === 'pagevisit';
  }

  function visit() {
    if (visited) return;
    visited = true;
    track('page_visit');
  }

  function call(name, value) {
    try {
      if (name === 'consent') choose(value);
      else if (name === 'user') user = merge(user, value);
      else if (name && typeof name === 'string') track(name, value);
    } catch (e) { /* a tag never breaks its page */ }
  }

  // calls made before now, in their order; the page's own visit goes before its first event
  var early = (stub && stub.q) || [];
  window.tg = call;
  call.loaded = true;
  if (allowed) quietly(clickId);
  try {
    visited = visited || [].some.call(early, function (one) { return isVisit(one[0]); });
    [].forEach.call(early, function (one) {
      if (one[0] !== 'consent' && one[0] !== 'user') visit();
      call(one[0], one[1]);
    });
    visit();
  } catch (e) { /* a tag never breaks its page */ }
})(window, document, navigator, location);
