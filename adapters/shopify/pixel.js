/*
 * Custom pixel for a Shopify shop: sends the shop's customer events to the gateway's source of adapter "shopify_pixel".
 *
 * Settings -> Customer events -> Add custom pixel, and paste this whole file. Set-up: docs/shopify.md, "Custom pixel".
 * APIs: shopify.dev, Web Pixels API: analytics, browser, init, customerPrivacy, standard events.
 *
 * What leaves, and when:
 * - with marketing consent, each event below, with consent, click id and cart id;
 * - before the choice, nothing: what happened on this page waits in memory; a denial drops it;
 * - a purchase without consent: only order id, checkout token and "not allowed", so that the order's webhook,
 *   which knows of no consent, is not sent to Pinterest either.
 */
const GATEWAY = "https://tags.example.com/in/shop_pixel";

// Those that the gateway maps; add a name that [sources.NAME.event_names] maps.
const EVENTS = [
  "page_viewed",
  "product_viewed",
  "collection_viewed",
  "search_submitted",
  "product_added_to_cart",
  "checkout_started",
  "payment_info_submitted",
  "checkout_completed",
];
const YEAR_S = 31536000;
const MOST_WAITING = 50;
// Browsers refuse more than 64 KB of requests that may outlive their page.
const MOST_KEPT_ALIVE = 60000;

const shop = init.data.shop.myshopifyDomain;
const waiting = [];
let privacy = init.customerPrivacy;
let clickId;

function isAllowed() {
  return Boolean(privacy) && privacy.marketingAllowed === true;
}

function post(body) {
  const text = JSON.stringify(Object.assign({ shop: shop, customerPrivacy: privacy }, body));
  // a text body crosses origins without a preflight
  fetch(GATEWAY, { method: "POST", body: text, keepalive: text.length < MOST_KEPT_ALIVE }).catch(() => {});
}

async function send(event) {
  clickId = clickId || findClickId().catch(() => "");
  const epik = await clickId;
  post({ click_ids: epik ? { epik: epik } : {}, init: { data: snapshot() }, event: event });
}

// The cart's id leads a later webhook of the order to this visit; a signed-in customer is known before the checkout.
function snapshot() {
  const { cart, customer } = init.data;
  return { cart: cart ? { id: cart.id } : undefined, customer: customer || undefined };
}

function sendDenial(event) {
  const checkout = (event.data && event.data.checkout) || {};
  const order = checkout.order && { id: checkout.order.id };
  const data = { checkout: { token: checkout.token, order: order } };
  post({ event: { id: event.id, name: event.name, timestamp: event.timestamp, data: data } });
}

function take(event) {
  if (isAllowed()) {
    send(event);
    return;
  }
  if (event.name === "checkout_completed") sendDenial(event);
  if (waiting.length < MOST_WAITING) waiting.push(event);
}

// -- the click id: of the landing page's URL, else as kept on an earlier page; the newer one where both say when

async function findClickId() {
  const found = /[?&]epik=([^&#]{1,1024})(?:[&#]|$)/i.exec(init.context.document.location.href);
  const given = found ? clean(decodeURIComponent(found[1])) : "";
  const kept = await keptClickId();
  if (!given || given === kept || (madeAt(given) > 0 && madeAt(kept) > madeAt(given))) return kept;
  if (privacy.saleOfDataAllowed !== false) await keepClickId(given);
  return given;
}

// Nothing but a click id may reach the cookie.
function clean(value) {
  return /^[\w.~+/=-]+$/.test(value) ? value : "";
}

async function keptClickId() {
  try {
    return (await browser.cookie.get("_epik")) || (await browser.localStorage.getItem("_epik")) || "";
  } catch (error) {
    return "";
  }
}

async function keepClickId(value) {
  try {
    await browser.cookie.set(`_epik=${value}; Max-Age=${YEAR_S}; Path=/; SameSite=Lax; Secure`);
    await browser.localStorage.setItem("_epik", value);
  } catch (error) {
    // this page still has it; the next one has not
  }
}

// Unix seconds, 0 when it does not say. Text: v=2&...&t=<base64 of 8 bytes, big-endian>.
function madeAt(epik) {
  const bytes = (base64url) => atob(base64url.replace(/-/g, "+").replace(/_/g, "/"));
  try {
    const time = bytes(/(?:^|&)t=([^&]+)/.exec(bytes(epik))[1]);
    return Array.from(time).reduce((sum, byte) => sum * 256 + byte.charCodeAt(0), 0);
  } catch (error) {
    return 0;
  }
}

// -- start

// custom pixels find the privacy API in `api`, app pixels beside `init`
const consent = typeof customerPrivacy === "undefined" ? api.customerPrivacy : customerPrivacy;
consent.subscribe("visitorConsentCollected", (event) => {
  privacy = event.customerPrivacy;
  const waited = waiting.splice(0);
  if (isAllowed()) waited.forEach(send);
});
EVENTS.forEach((name) => analytics.subscribe(name, take));
