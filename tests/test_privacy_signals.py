"""Every adapter hands on the privacy signals that its platform has."""

import base64
import hmac
import json
from typing import Any

import pytest

from adapters.gtm import register_adapters as register_gtm
from adapters.shopify import register_adapters as register_shopify
from adapters.tealium import Tealium
from gateway import Adapter, Consent, Context, Event, Hit, Secret, Source
from gateway.plugins.browser_tag import BrowserTag

SECRET = "s3cret"
CONTEXT = Context()
(GTM,) = register_gtm(CONTEXT)
SHOPIFY = {adapter.name: adapter for adapter in register_shopify(CONTEXT)}
LONG_GPP = "DBABBg~" + "A" * 4_000
IAB = Consent(us_privacy="1YYN", gpp=LONG_GPP, gpp_sid="7,8", gpc=True)


def consent_of(adapter: Adapter, payload: Any, headers: dict[str, str] | None = None, **hit: Any) -> Consent:
    """Return what an adapter reads of one event."""
    source = Source(
        name="s", adapter=adapter.name, site="shop", destinations=("p",), options=adapter.Options(),
        secrets=(Secret(value=SECRET),),
    )  # fmt: skip
    body = json.dumps(payload).encode() if payload is not None else b""
    (event,) = adapter.normalize(Hit(source=source, body=body, headers=headers or {}, **hit))
    assert isinstance(event, Event)
    return event.consent


# -- the tag's JSON


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"us_privacy": "1YYN", "gpp": LONG_GPP, "gpp_sid": [7, 8], "gpc": True}, IAB),
        ({"gpp_sid": "7_8", "gpp": "DBAA"}, Consent(gpp="DBAA", gpp_sid="7_8")),
        ({"ad_personalization": "denied"}, Consent(sale_of_data=False)),
        ({"ad_personalization": "granted"}, Consent()),
        ({"ad_personalization": "denied", "sale_of_data": True}, Consent(sale_of_data=False)),
        ({"ad_personalization": "granted", "sale_of_data": False}, Consent(sale_of_data=False)),
        ({"ad_storage": "granted", "ad_user_data": "denied"}, Consent(marketing=False)),
        ({"sale_of_data": True}, Consent(sale_of_data=True)),
    ],
)
def test_browser_tag(given: dict[str, Any], expected: Consent) -> None:
    """The IAB's strings at their length, Google's four consent types, and our own names."""
    assert consent_of(BrowserTag(), {"event_name": "checkout", "consent": given}) == expected


# -- Google Tag Manager


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"us_privacy": "1YYN", "gpp": LONG_GPP, "gpp_sid": [7, 8], "gpc": "1"}, IAB),
        ({"x-ga-gcs": "G100"}, Consent(marketing=False, analytics=False)),
        ({"x-ga-gcs": "G111"}, Consent(marketing=True, analytics=True)),
        ({"x-ga-gcd": "13p3p3p3p5"}, Consent()),
        ({"consent_state": {"ad_storage": False}}, Consent(marketing=False)),
        ({"consent_state": {"ad_user_data": "denied"}}, Consent(marketing=False)),
        ({"consent_state": {"ad_personalization": "denied"}}, Consent(sale_of_data=False)),
        ({"consent_state": {"ad_personalization": True}}, Consent()),
        ({"allow_ad_personalization_signals": False}, Consent(sale_of_data=False)),
        ({"allow_ad_personalization_signals": "true"}, Consent()),
        ({"restricted_data_processing": True}, Consent(sale_of_data=False)),
        ({"restricted_data_processing": "false"}, Consent()),
        ({"x-ga-npa": "1"}, Consent(sale_of_data=False)),
        ({"npa": 0, "rdp": "0"}, Consent()),
        ({"x-ga-rdp": "1"}, Consent(sale_of_data=False)),
    ],
)
def test_gtm(data: dict[str, Any], expected: Consent) -> None:
    """Consent mode, personalised ads switched off, and the IAB's strings; undocumented letters are not read."""
    assert consent_of(GTM, {"event_name": "purchase", **data}) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("gcs=G100", Consent(marketing=False, analytics=False)),
        ("npa=1", Consent(sale_of_data=False)),
        ("npa=0", Consent()),
        ("rdp=1", Consent(sale_of_data=False)),
        ("us_privacy=1YYN&gpp=DBAA&gpp_sid=7_8", Consent(us_privacy="1YYN", gpp="DBAA", gpp_sid="7_8")),
    ],
)
def test_raw_ga4_hits(query: str, expected: Consent) -> None:
    """The same signals as parameters of a copied GA4 hit."""
    assert consent_of(GTM, None, query=f"v=2&tid=G-1&en=purchase&{query}", tail="/g/collect") == expected


# -- Tealium


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"us_privacy": "1YYN", "gpp": LONG_GPP, "gpp_sid": ["7", "8"], "gpc": "True"}, IAB),
        ({"gpp_string": "DBAA"}, Consent(gpp="DBAA")),
        ({"global_privacy_control_opt_out": "true"}, Consent(gpc=True)),
        ({"global_privacy_control_opt_out": False}, Consent(gpc=False)),
        ({"do_not_sell": "true"}, Consent(sale_of_data=False)),
        ({"do_not_sell": [1, 42, 51]}, Consent(sale_of_data=False)),
        ({"do_not_sell": [42]}, Consent(sale_of_data=False)),
        ({"do_not_sell": []}, Consent()),
        ({"do_not_sell": ["false"]}, Consent(sale_of_data=True)),
        ({"consent_status": "notConsented"}, Consent(marketing=False, analytics=False)),
        ({"cp.CONSENTMGR": "ts:1|consent:false"}, Consent(marketing=False, analytics=False)),
        ({"cp.CONSENTMGR": "ts:1%7Cconsent:true"}, Consent(marketing=True, analytics=True)),
        ({"cp.CONSENTMGR": "c1:1|c2:0|c3:0|ts:1|consent:true"}, Consent(marketing=False, analytics=True)),
        ({"cp.CONSENTMGR": "c1:0|c3:1|ts:1|consent:true"}, Consent(marketing=True, analytics=False)),
        ({"cp.CONSENTMGR": "c1:1|c3:1|ts:1|consent:false"}, Consent(marketing=False, analytics=False)),
        ({"cp.CONSENTMGR": "dns:true|ts:1"}, Consent(sale_of_data=False)),
        ({"cp.CONSENTMGR": "dns:false|ts:1"}, Consent(sale_of_data=True)),
        ({"cp.CONSENTMGR": "dns:false|ts:1", "do_not_sell": True}, Consent(sale_of_data=False)),
        ({"cp.CONSENTMGR": "odd"}, Consent()),
        (
            {"cp.CONSENTMGR": "consent:true", "consent_status": "notConsented"},
            Consent(marketing=False, analytics=False),
        ),
    ],
)
def test_tealium(variables: dict[str, Any], expected: Consent) -> None:
    """Both consent managers, the opt-out of sale in its two forms, GPC under its documented name; a denial wins."""
    assert consent_of(Tealium(), {"tealium_event": "purchase", **variables}) == expected


def test_tealium_cookie_of_the_webhook() -> None:
    """The webhook has the consent cookie apart from the variables."""
    payload = {
        "data": {"udo": {"tealium_event": "purchase"}, "firstparty_tealium_cookies": {"CONSENTMGR": "dns:1|ts:1"}}
    }
    assert consent_of(Tealium(), payload) == Consent(sale_of_data=False)


# -- Shopify

ATTRIBUTES = {"_us_privacy": "1YYN", "_gpp": LONG_GPP, "gpp_sid": "7,8", "gpc": "true"}


def test_shopify_cart_attributes() -> None:
    """What the theme wrote into the cart comes with the order, a malformed string too."""
    adapter = SHOPIFY["shopify"]
    for attributes, expected in (
        (ATTRIBUTES, IAB),
        ({"us_privacy": "not a US privacy string"}, Consent(us_privacy="not a US privacy string")),
        ({"sale_of_data_allowed": "false", "marketing_allowed": "true"}, Consent(sale_of_data=False, marketing=True)),
    ):
        order = {
            "id": 1, "token": "t", "currency": "USD", "email": "jo@example.com", "subtotal_price": "1.00",
            "line_items": [], "note_attributes": [{"name": key, "value": value} for key, value in attributes.items()],
        }  # fmt: skip
        body = json.dumps(order).encode()
        signature = base64.b64encode(hmac.digest(SECRET.encode(), body, "sha256")).decode()
        headers = {"x-shopify-topic": "orders/create", "x-shopify-hmac-sha256": signature}
        assert consent_of(adapter, order, headers) == expected


def test_shopify_pixel() -> None:
    """The pixel's privacy state, completed by the cart's attributes."""
    event = {
        "id": "sh-1", "name": "checkout_completed", "clientId": "c", "timestamp": "2026-11-22T10:00:00Z",
        "data": {"checkout": {"attributes": [{"key": key, "value": value} for key, value in ATTRIBUTES.items()]}},
    }  # fmt: skip
    state = {"marketingAllowed": True, "saleOfDataAllowed": False, "analyticsProcessingAllowed": True}
    found = consent_of(SHOPIFY["shopify_pixel"], {"customerPrivacy": state, "event": event})
    assert found == Consent(
        marketing=True, analytics=True, sale_of_data=False, us_privacy="1YYN", gpp=LONG_GPP, gpp_sid="7,8", gpc=True
    )
