"""What a call of ``/api/audiences`` may say: unknown keys are refused."""

from gateway.event import Struct


class Query(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call's body: unknown keys are refused."""


class LoginQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Begin to log in at a source or sink; ``again``: although its credentials work."""

    name: str
    again: bool = False


class LookQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Wait up to ``wait_s`` for the end of a login, known by its state."""

    state: str
    wait_s: float = 0.0


class AnswerQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The address that the vendor's page sent the browser to, for a browser that does not reach this machine."""

    url: str


class AccountQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Choose the account that commands mean when they name none: by id or name, "" for the only one."""

    sink: str
    account: str = ""


class ConnectQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As :meth:`gateway.audiences.Audiences.connect`; ``source`` and ``sink`` None: the only one there is."""

    kind: str
    group: str
    source: str | None = None
    sink: str | None = None
    account: str = ""
    audience: str | None = None
    create: str | None = None
    remove: bool = True
    dry_run: bool = False


class DisconnectQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``keep``: those whom the connection added stay in the audience."""

    connection: int
    keep: bool


class SyncQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As :meth:`gateway.audiences.Audiences.sync`."""

    connection: int | None = None
    full: bool = False
    dry_run: bool = False
    confirm: bool = False


class LookalikeQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``country``: two capital letters; ``percent``: 1 to 10 of its users."""

    connection: int
    name: str
    country: str
    percent: int = 1
