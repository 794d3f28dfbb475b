"""
``tag-gateway init``: a few questions, then a working ``gateway.toml`` and what is left to do on the vendors' screens.

Secrets are never asked for and never written: the file names environment variables.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from gateway import identifiers
from gateway.errors import ConfigError
from gateway.event import Struct
from gateway.verify import origin_of

T = TypeVar("T")
PLATFORMS = ("shopify", "gtm", "tealium", "site")
_SHOP = re.compile(r"[a-z0-9][a-z0-9-]*\.myshopify\.com\Z")
_ACCOUNT = re.compile(r"[0-9]{1,18}\Z")
_NEW_SECRET = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"  # noqa: S105 - a command that makes one


class Answers(Struct, frozen=True, kw_only=True):
    """What was answered; ``origins`` are those of the shop's pages, ``address`` is the gateway's own public one."""

    platforms: tuple[str, ...]
    shop: str
    origins: tuple[str, ...]
    country: str
    account: str
    address: str


class Variable(Struct, frozen=True, kw_only=True):
    """An environment variable to set, and where its value is found."""

    name: str
    where: str


class Step(Struct, frozen=True, kw_only=True):
    """What to enter at a vendor: ``url`` goes where ``where`` says."""

    url: str
    where: str


def init(path: Path) -> None:
    """
    Ask, write the file, and say what is left to do.

    Raises:
        ConfigError: The file exists already, or its folder does not.
    """
    if path.exists():
        raise ConfigError(f"{path} exists already: move it away, or name another file: tag-gateway init FILE.")
    answers = ask()
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text_of(answers))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}): choose another file.") from error
    click.echo(f"\nWrote {path}.")
    _explain(path, answers)


def ask() -> Answers:
    """Ask everything; a wrong answer is asked again. Every answer can be a line of standard input."""
    platforms = _prompt(
        f"Where do events come from? Several with commas: {', '.join(PLATFORMS)}", _platforms, "shopify"
    )
    shop = (
        _prompt("The shop's domain at Shopify, such as example.myshopify.com", _shop) if "shopify" in platforms else ""
    )
    origins: tuple[str, ...] = ()
    if {"shopify", "site"} & set(platforms):
        origins = _prompt(
            "Address of the shop's pages, such as https://shop.example.com (several with commas)", _origins
        )
    return Answers(
        platforms=platforms,
        shop=shop,
        origins=origins,
        country=_prompt("Country of most customers, for phone numbers without a country code", _country, "US"),
        account=_prompt("Pinterest ad account id (digits; it stands in the address of Ads Manager)", _account),
        address=_prompt("Public https address of this gateway", _address, "https://tags.example.com"),
    )


def _prompt(text: str, read: Callable[[str], T], default: str | None = None) -> T:
    def checked(answer: str) -> T:
        try:
            return read(answer.strip())
        except ValueError as error:
            raise click.UsageError(str(error)) from error

    result: T = click.prompt(text, value_proc=checked, default=default)
    return result


def _platforms(answer: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(re.split(r"[,\s]+", answer.lower().strip(", "))))
    unknown = [name for name in names if name not in PLATFORMS]
    if unknown:
        raise ValueError(f"Not known: {', '.join(unknown)}. Choose of {', '.join(PLATFORMS)}.")
    return names


def _shop(answer: str) -> str:
    shop = re.sub(r"\Ahttps?://", "", answer.lower()).rstrip("/")
    if not _SHOP.match(shop):
        raise ValueError("Write the ….myshopify.com domain: it is in the admin under Settings → Domains.")
    return shop


def _origins(answer: str) -> tuple[str, ...]:
    found = [origin_of(part) for part in re.split(r"[,\s]+", answer) if part]
    if not found or any(origin is None or not origin.startswith(("https://", "http://")) for origin in found):
        raise ValueError("Write scheme and host, such as https://shop.example.com.")
    return tuple(dict.fromkeys(origin for origin in found if origin is not None))


def _country(answer: str) -> str:
    try:
        return identifiers.country(answer).upper()
    except identifiers.Unusable:
        raise ValueError('Write a country code of two letters, such as "US".') from None


def _account(answer: str) -> str:
    if not _ACCOUNT.match(answer):
        raise ValueError("An ad account id has 1 to 18 digits and nothing else.")
    return answer


def _address(answer: str) -> str:
    address = origin_of(answer)
    if address is None or not address.startswith("https://"):
        raise ValueError("Write an https address, such as https://tags.example.com: Shopify sends to https only.")
    return address


def text_of(answers: Answers) -> str:
    """Return the file's text."""
    parts = [_HEAD.format(country=answers.country)]
    origins = ", ".join(f'"{origin}"' for origin in answers.origins)
    if "shopify" in answers.platforms:
        parts.append(_SHOPIFY.format(shop=answers.shop, origins=origins))
    if "gtm" in answers.platforms:
        parts.append(_GTM)
    if "tealium" in answers.platforms:
        parts.append(_TEALIUM)
    if "site" in answers.platforms:
        parts.append(_SITE.format(origins=origins))
    parts.append(_PINTEREST.format(account=answers.account))
    return "\n".join(parts)


_HEAD = """\
# Configuration of the tag gateway; every table and key: docs/configuration.md.
# Relative paths are relative to this file. Secrets stand in the environment, never here.

[server]
bind = "127.0.0.1:8000"           # a proxy with https stands in front
trusted_proxies = ["127.0.0.1/32"]

[operator]
bind = "127.0.0.1:8081"           # /metrics and /api/status: never for the public
password = {{ env = "GATEWAY_PASSWORD" }}

[store]
url = "sqlite:///var/gateway.db"

[sites.shop]                      # sources of one shop share a site: an order told by two of them counts once
default_country = "{country}"
"""
_SHOPIFY = """\
[sources.shop]                    # POST /in/shop: Shopify's webhooks
adapter = "shopify"
site = "shop"
options = {{ shop = "{shop}" }}
secrets = [{{ env = "SHOPIFY_SECRET" }}]
destinations = ["pinterest"]

[sources.shop_pixel]              # POST /in/shop_pixel: the shop's custom pixel
adapter = "shopify_pixel"
site = "shop"
options = {{ shop = "{shop}" }}
allowed_origins = [{origins}, "null"]   # custom pixels run in a sandbox and send Origin: null
destinations = ["pinterest"]
"""
_GTM = """\
[sources.gtm]                     # /in/gtm: a GTM server container
adapter = "gtm"
site = "shop"
secrets = [{ env = "GTM_SECRET" }]
destinations = ["pinterest"]
"""
_TEALIUM = """\
[sources.tealium]                 # /in/tealium: Tealium EventStream
adapter = "tealium"
site = "shop"
secrets = [{ env = "TEALIUM_SECRET" }]
destinations = ["pinterest"]
"""
_SITE = """\
[sources.tag]                     # /in/tag: the site's own pages
adapter = "browser_tag"
site = "shop"
allowed_origins = [{origins}]
destinations = ["pinterest"]
"""
_PINTEREST = """\
[destinations.pinterest]
type = "pinterest"
ad_account_id = "{account}"
token = {{ env = "PINTEREST_TOKEN" }}

# Klaviyo lists mirrored into Pinterest audiences: [audience_sources.klaviyo], [audience_sinks.pinterest];
# see docs/audiences.md.
"""


def variables(answers: Answers) -> Sequence[Variable]:
    """Return the environment variables that the file names."""
    found = [
        Variable(
            name="PINTEREST_TOKEN", where="Ads Manager → Conversions → Conversion access token: generate a new one"
        ),
        Variable(name="GATEWAY_PASSWORD", where=f"choose one, for example with {_NEW_SECRET}"),
    ]
    if "shopify" in answers.platforms:
        where = "the app's client secret; for webhooks made in the admin: Settings → Notifications → Webhooks"
        found.append(Variable(name="SHOPIFY_SECRET", where=where))
    if "gtm" in answers.platforms:
        found.append(Variable(name="GTM_SECRET", where="choose one, and enter it in the server container (below)"))
    if "tealium" in answers.platforms:
        found.append(Variable(name="TEALIUM_SECRET", where="choose one, and enter it in the connector (below)"))
    return found


def steps(answers: Answers) -> Sequence[Step]:
    """Return the addresses to enter at the vendors."""
    known = {
        "shopify": (
            ("shop", "Shopify: Settings → Notifications → Webhooks, 'Order creation' and 'Order payment', format JSON"),
            ("shop_pixel", "Shopify: Settings → Customer events → Add custom pixel; its code is in docs/shopify.md"),
        ),
        "gtm": (("gtm", "GTM server container: JSON HTTP request tag, header Authorization: Bearer GTM_SECRET"),),
        "tealium": (("tealium", "Tealium: Webhook connector, POST, header Authorization: Bearer TEALIUM_SECRET"),),
        "site": (("tag", "the site's pages: POST there, see docs/browser-tag.md"),),
    }
    return [
        Step(url=f"{answers.address}/in/{source}", where=where)
        for platform in answers.platforms
        for source, where in known[platform]
    ]


def _explain(path: Path, answers: Answers) -> None:
    click.echo("\nSet these environment variables:")
    for variable in variables(answers):
        click.echo(f"  {variable.name}\n      {variable.where}")
    click.echo("\nEnter these addresses:")
    for step in steps(answers):
        click.echo(f"  {step.url}\n      {step.where}")
    click.echo(f"\nThen: tag-gateway check --online --config {path}")
    click.echo(f"      tag-gateway serve --config {path}")
    click.echo("\nTo mirror Klaviyo lists into Pinterest audiences: docs/audiences.md.")
