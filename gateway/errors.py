"""The error tree.

::

    GatewayError
      ConfigError           what the operator wrote: exit 2; names file, key, expected type, nearest valid key
      PluginError           start-up: names plugin, distribution, version and the remedy: exit 2
      Rejected              the hit or the event is not acceptable; the sender's fault, never a bug
      CommandFailed         a command could not do its work: exit 1
      Unavailable           nothing was accepted, the same hit may succeed later: 503 + Retry-After
        PluginFailed        a plugin raised, hung or returned rubbish
          Unreadable        it did so with a hit that is authentic: such a hit may be quarantined
      StoreError            the store cannot be opened or used: exit 3
        StoreLocked         another process holds it
        StoreTooNew         written by a newer program

Messages say what happened, to which named thing, and what to do. They never hold a payload, a header, an identifier
or a secret.
"""


class GatewayError(Exception):
    """The root: everything this project raises on purpose."""


class ConfigError(GatewayError):
    """The configuration is wrong; the message names file, key and remedy."""


class PluginError(GatewayError):
    """A plugin cannot be used; the message names plugin, distribution, version and remedy."""


class Rejected(GatewayError):
    """
    The hit, or one event of it, is not acceptable.

    Args:
        reason: Short ``snake_case`` code, stable: it is the error code of the HTTP answer and a metrics label.
        message: One sentence for a person, without any value of the payload.
        status: HTTP status: 400 malformed, 401 signature or secret, 403 origin or shop, 405, 413, 415.
        hint: The likely cause and the remedy.
        cause: For the operator alone, in the log and the metrics: a short ``snake_case`` code, never in the answer.
    """

    def __init__(self, reason: str, message: str, *, status: int = 400, hint: str = "", cause: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.status = status
        self.hint = hint
        self.cause = cause


class CommandFailed(GatewayError):
    """A command could not do its work; the message says why and what to do."""


class Unavailable(GatewayError):
    """
    Nothing was accepted and the same hit may succeed later.

    Args:
        reason: Short code: ``overloaded``, ``store_failed``, ``plugin_failed``, ``privacy_failed``.
        message: One sentence for a person.
        retry_after_s: Seconds for the ``Retry-After`` header.
    """

    def __init__(self, reason: str, message: str, *, retry_after_s: int = 5) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s


class PluginFailed(Unavailable):
    """
    A plugin raised, hung or returned rubbish.

    Args:
        plugin: Its name.
        error: The exception's type, never its text: that may hold values of the payload.
        where: File and line of the error's origin, "" when unknown.
    """

    def __init__(self, plugin: str, error: str, where: str) -> None:
        super().__init__("plugin_failed", f"The plugin '{plugin}' failed; nothing was accepted.", retry_after_s=30)
        self.plugin = plugin
        self.error = error
        self.where = where


class Unreadable(PluginFailed):
    """A hit whose authenticity is proved, and which today's code fails to turn into events: a bug."""


class StoreError(GatewayError):
    """The store cannot be opened or used; the message names the file and the remedy."""


class StoreLocked(StoreError):
    """Another process holds the store."""


class StoreTooNew(StoreError):
    """The store was written by a newer program than this one."""
