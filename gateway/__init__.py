"""
The public API for authors of plugins, and nothing else.

A plugin imports from here only: what is not listed may change without notice.
"""

from gateway import coerce, identifiers, proxies, verify
from gateway.audience import AudienceError, AudienceSink, AudienceSource, Group, LeftOut, Member, Page
from gateway.body import json_body
from gateway.calls import Call, Calls, Credential, FixedToken, check_url
from gateway.command import CommandContext, command_context, config_option
from gateway.errors import CommandFailed, Rejected
from gateway.event import (
    ACTION_SOURCES,
    PAGE_EVENTS,
    STANDARD_NAMES,
    ActionSource,
    Alarm,
    App,
    Client,
    Consent,
    Content,
    Device,
    Erasure,
    Event,
    Invalid,
    Item,
    Key,
    Normalized,
    Purchase,
    SealedEvent,
    Skipped,
    Struct,
    User,
)
from gateway.hit import Hit, Secret, Source
from gateway.hookspecs import hookimpl
from gateway.interfaces import (
    API,
    Adapter,
    Answer,
    Asset,
    Batch,
    Component,
    Context,
    Delivered,
    Destination,
    Enricher,
    HttpClient,
    Identifiers,
    NoOptions,
    Observer,
    Paused,
    Quality,
    Refused,
    Result,
    Retry,
    Score,
    Unclear,
    Unreachable,
    Verdict,
)
from gateway.oauth import OAuth, OAuthApp
from gateway.outcome import Settled
from gateway.pacing import Limit, Pace, shared_pace
from gateway.tokens import token_path

__all__ = [
    "ACTION_SOURCES", "API", "PAGE_EVENTS", "STANDARD_NAMES", "ActionSource", "Adapter", "Alarm", "Answer", "App",
    "Asset", "AudienceError", "AudienceSink", "AudienceSource", "Batch", "Call", "Calls", "Client", "CommandContext",
    "CommandFailed", "Component", "Consent", "Content", "Context", "Credential", "Delivered", "Destination", "Device",
    "Enricher", "Erasure", "Event", "FixedToken", "Group", "Hit", "HttpClient", "Identifiers", "Invalid", "Item",
    "Key", "LeftOut", "Limit", "Member", "NoOptions", "Normalized", "OAuth", "OAuthApp", "Observer", "Pace", "Page",
    "Paused", "Purchase", "Quality", "Refused", "Rejected", "Result", "Retry", "Score", "SealedEvent", "Secret",
    "Settled", "Skipped", "Source", "Struct", "Unclear", "Unreachable", "User", "Verdict", "check_url", "coerce",
    "command_context", "config_option", "hookimpl", "identifiers", "json_body", "proxies", "shared_pace",
    "token_path", "verify",
]  # fmt: skip
