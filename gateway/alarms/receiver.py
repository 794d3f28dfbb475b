"""``[alerts]``: where alarms are sent to."""

from gateway import config as configuration
from gateway.calls import check_url
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.event import Struct
from gateway.hit import Secret


class Receiver(Struct, frozen=True, kw_only=True):
    """``url`` None: nobody is told. It is a secret: who has it can write to the channel behind it."""

    url: Secret | None = None
    repeat_s: float = 21_600


def receiver_of(config: Config, warnings: list[str]) -> Receiver:
    """
    Return the receiver of ``[alerts]``.

    Raises:
        ConfigError: The address is none that may be called; it is not quoted.
    """
    table = config.alerts
    if table.url is None:
        return Receiver(repeat_s=table.repeat_s)
    if isinstance(table.url, str):
        warnings.append('[alerts] url: a literal secret in the file; use { env = "…" }.')
    url = configuration.secret(table.url, config, "[alerts] url").value
    base, _, query = url.partition("?")
    try:
        check_url("[alerts] url", base)
    except ValueError as error:
        raise ConfigError(f"{config.path}: {error}") from None
    if not query.isascii() or not query.isprintable() or " " in query or "#" in query:
        raise ConfigError(f"{config.path}: [alerts] url is not a URL.")
    return Receiver(url=Secret(value=url), repeat_s=table.repeat_s)
