"""
The ``client`` enricher: whose address and browser this is.

On a public source both come from the connection, behind a trusted proxy from ``X-Forwarded-For``; what the payload says
is ignored. On a server source only the payload knows the shopper: the connection is the sender's machine.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec
from ua_parser import Parser, Resolver
from user_agents.parsers import UserAgent, parse_browser, parse_device, parse_operating_system

from gateway import Client, Context, Device, Enricher, Event, Hit, Struct, coerce, hookimpl, identifiers, proxies

#: A user agent is cut here before it is parsed: an endless one costs time and says nothing.
PARSED_LENGTH = 512
forwarded_client = proxies.forwarded_client


class Browser(Struct, frozen=True, kw_only=True):
    """What a user agent says."""

    device: Device
    is_bot: bool


def _resolver() -> Resolver:
    """Return the fast resolver, or the pure-Python one where its wheel is missing."""
    try:
        from ua_parser import loaders, regex

        # lazy: the compiled patterns are for the pure-Python resolver, and cost a second
        return regex.Resolver(loaders.load_lazy_builtins())
    except ImportError:
        from ua_parser import basic, loaders

        return basic.Resolver(loaders.load_builtins())


class _FastUserAgent(UserAgent):  # type: ignore[misc]  # the library has no types
    """user_agents' classification over ua-parser's current interface: its own parser takes 25 times as long."""

    _parser: Callable[[str], object] | None = None

    def __init__(self, text: str) -> None:
        cls = type(self)
        if cls._parser is None:
            cls._parser = Parser(_resolver()).parse
        found = cls._parser(text).with_defaults()  # type: ignore[attr-defined]
        self.ua_string = text
        os, browser, device = found.os, found.user_agent, found.device
        self.os = parse_operating_system(os.family, os.major, os.minor, os.patch, os.patch_minor)
        self.browser = parse_browser(browser.family, browser.major, browser.minor, browser.patch)
        self.device = parse_device(device.family, device.brand, device.model)


@lru_cache(20_000)
def browser_of(user_agent: str) -> Browser:
    """Read a user agent of up to ``PARSED_LENGTH`` characters."""
    found = _FastUserAgent(user_agent)
    kind = "tablet" if found.is_tablet else "mobile" if found.is_mobile else "desktop" if found.is_pc else None
    device = Device(
        brand=_known(found.device.brand),
        model=_known(found.device.model),
        type=kind,
        os_family=_known(found.os.family),
        os_version=found.os.version_string or None,
    )
    is_bot = bool(found.is_bot) or "pinterestbot" in user_agent.lower()
    return Browser(device=Device() if is_bot else device, is_bot=is_bot)


def _known(value: str | None) -> str | None:
    return None if value in (None, "", "Other", "Generic") else value


class ClientEnricher(Enricher):
    """Fills ``client``, ``device`` and the bot flag."""

    name = "client"
    order = 10

    def __init__(self, trusted_proxies: Sequence[str]) -> None:
        browser_of("")  # the first one loads the patterns: not while a hit waits
        self._proxies = proxies.TrustedProxies(trusted_proxies)

    async def enrich(self, event: Event, hit: Hit) -> Event:
        """Set address and browser; an address that is not public and a placeholder are dropped with a note."""
        notes = event.notes
        url, consent = event.source_url, event.consent
        if hit.source.is_server:
            ip, agent = event.client.ip, event.client.user_agent
        else:
            ip = self._proxies.client(hit.peer, hit.header("x-forwarded-for"))
            agent = hit.header("user-agent") or None
            if url is None and event.action_source == "web":
                url = coerce.url(hit.header("referer"))
            if hit.header("sec-gpc").strip() == "1":
                consent = msgspec.structs.replace(consent, gpc=True)
        if ip:
            try:
                ip = identifiers.ip(ip)
            except identifiers.Unusable as error:
                ip, notes = None, (*notes, f"client_ip: {error.reason}")
        if agent:
            agent, notes = _clean_agent(agent, notes)
        browser = browser_of(agent[:PARSED_LENGTH]) if agent else None
        return msgspec.structs.replace(
            event,
            client=Client(ip=ip or None, user_agent=agent),
            source_url=url,
            consent=consent,
            device=event.device if browser is None else _filled(event.device, browser.device),
            is_bot=browser is not None and browser.is_bot,
            notes=notes,
        )


@lru_cache(20_000)
def _cleaned(agent: str) -> tuple[str | None, str | None]:
    try:
        return identifiers.user_agent(agent), None
    except identifiers.Unusable as error:
        return None, f"client_user_agent: {error.reason}"


def _clean_agent(agent: str, notes: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    # cut before the cache, so that endless ones do not fill the memory
    cleaned, note = _cleaned(agent[: identifiers.MAX_USER_AGENT])
    return cleaned, notes if note is None else (*notes, note)


_NO_DEVICE = Device()


def _filled(told: Device, read: Device) -> Device:
    """Return what the source told of the device, completed by what its user agent says."""
    if told == _NO_DEVICE:
        return read
    missing = {
        field: getattr(read, field)
        for field in ("brand", "model", "type", "os_family", "os_version")
        if getattr(told, field) is None
    }
    return msgspec.structs.replace(told, **missing)


@hookimpl
def register_enrichers(context: Context) -> list[Enricher]:
    """Provide ``client``."""
    return [ClientEnricher(context.trusted_proxies)]
