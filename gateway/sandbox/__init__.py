"""
Local stand-ins of the vendors, after their published descriptions, for the demo, tests and benchmarks.

:class:`PinterestSandbox` is one ASGI app (``.app``) that answers for every host: Pinterest's events, lists, audiences
and OAuth, and Klaviyo's lists, segments and OAuth. ``tag-gateway sandbox`` serves it, by default on 127.0.0.1:8010.

**Pinterest** (``base_url`` = ``http://HOST:PORT/v5``), bearer token ``sandbox-token`` or one from OAuth::

    POST      /v5/ad_accounts/ID/events
    GET       /v5/ad_accounts, /v5/ad_accounts/ID
    GET POST  /v5/ad_accounts/ID/customer_lists          GET PATCH  …/customer_lists/LIST
    GET POST  /v5/ad_accounts/ID/audiences               GET PATCH  …/audiences/AUDIENCE
    GET       /oauth/         says yes at once: 302 to redirect_uri with code and state
    POST      /v5/oauth/token code and refresh grants; app 1500000 with secret sandbox-app-secret; refresh tokens rotate

**Klaviyo** (``base_url`` = ``http://HOST:PORT``), ``Klaviyo-API-Key sandbox-klaviyo-key`` or a bearer from OAuth::

    GET   /api/lists, /api/lists/ID, /api/lists/ID/profiles, /api/lists/ID/relationships/profiles; the same of segments
    GET   /oauth/authorize    says yes at once; PKCE (S256) is required
    POST  /oauth/token, /oauth/revoke    app sandbox-klaviyo-app with secret sandbox-klaviyo-secret

**Control**, JSON in and out. People are numbers: number N is profile ``01SANDBOX`` + N in 17 digits with the e-mail
``personN@people.example``, unless changed. Where PEOPLE stands, give ``"people"`` (numbers, profile ids or e-mails; an
unknown e-mail makes a new profile) or ``"first"`` and ``"count"`` (a range of numbers), or both::

    POST   /_sandbox/klaviyo/lists|segments   {"name", PEOPLE, "id"?, "since"?, "span_s"?}  the range joined evenly over
                                              span_s from since (Unix s); a million cost no memory -> {"id", "members"…}
    GET    /_sandbox/klaviyo/lists|segments/ID   {"members": n}; ?people=true lists up to 10,000 of them
    PATCH  …/ID          {"name"?, "is_active"?, "is_processing"?, "profile_count"? (a lie; null: the truth again)}
    DELETE …/ID
    POST   …/ID/join     {PEOPLE, "joined_at"?}     POST …/ID/leave  {PEOPLE}
    GET    …/ID/eligible {"count", "digest"} of the SHA-256 of everyone with an e-mail who is not suppressed or
                         unsubscribed; ?include_suppressed=true counts these too. Equal digests are equal sets.
    PATCH  /_sandbox/klaviyo/people  {PEOPLE, "email"? (text or null; {n} is the number), "suppress"? (a reason or
                         null), "list_suppress"? {"list_id", "reason"}, "consent"? ("UNSUBSCRIBED"…), "delete"?: true}
    PUT    /_sandbox/klaviyo/settings  {"burst"?, "steady"?, "count_burst"?, "count_steady"? (null: no limit),
                         "null_next"?: true (links.next null, not absent, at the end), "access_token_s"?, "deny"?}
    POST   /_sandbox/klaviyo/cursors/expire      every cursor handed out so far is refused
    POST   /_sandbox/pinterest/audiences  {"account", "name", "audience_type"?, "list"? (share this list), PEOPLE}
                         an audience, with a customer list if of that type, as if it had always been there
    GET    /_sandbox/pinterest/lists/ID, …/audiences/ID   {"list", "count", "digest", "status", "batches", "added",
                         "removed", "plain"…}; ?members=true adds "hashes", sorted, up to 10,000
    POST   …/ID/contains {"hashes": […]} -> {"held": [bool…]}
    PUT    /_sandbox/pinterest/accounts   {"accounts": [{"id", "name"}]}   from then on others are 403
    PUT    /_sandbox/pinterest/settings   {"processing_s"? (0), "audience_needs"? "any"|"read"|"ready" ("read"),
                         "match_rate"? (1.0), "max_records"? (10000), "max_bytes"? (1048576), "read_rate"?,
                         "write_rate"? (calls a minute; null), "retry_after"? (true), "access_token_s"?, "deny"?}
    POST   /_sandbox/pinterest|klaviyo/tokens/expire    access tokens of OAuth are 401, refresh tokens still work
    POST   /_sandbox/pinterest|klaviyo/tokens/revoke    both, and for Klaviyo the private keys too, until reset
    POST   /_sandbox/calls/faults  {"faults": [CallFault…]}   see script.py      DELETE drops them
    GET    /_sandbox/calls         ?vendor=&path=&limit=  {"total", "by": {"GET /api/lists 200": n}, "calls": […]}
    POST   /_sandbox/reset         everything back to the start
    …      the controls of events: see control.py

``CallFault`` (first that applies wins): ``kind`` status | answer | cut_before | cut_after | delay | end_early |
empty_page | html | truncated; ``vendor``?, ``method``?, ``path``? (a part of it), ``skip`` (0) calls go first,
``times`` (1; 0: always), ``status`` (503), ``retry_after``?, ``delay_s``.

In process the same is at ``sandbox.klaviyo`` (``.people``: :class:`gateway.sandbox.people.People`), at
``sandbox.audiences``, ``sandbox.script`` and ``sandbox.log`` (``log.watch = f`` calls ``f(vendor, call, answer)`` for
each call, ``answer`` None when it was cut); time is the sandbox's ``clock``.
"""

from gateway.sandbox.faults import Fault, Faults
from gateway.sandbox.pinterest import PinterestSandbox, SandboxConfig
from gateway.sandbox.record import Counts, Record
from gateway.sandbox.script import CallFault

__all__ = ["CallFault", "Counts", "Fault", "Faults", "PinterestSandbox", "Record", "SandboxConfig"]
