"""What is remembered of earlier hits, for later ones."""

from typing import NamedTuple


class Remembered:
    """
    What is remembered under one key: mutable, because later hits of the same key add to it before it is committed.

    ``clicks`` are click ids by vendor, of the hit at ``click_at``; ``ip`` and ``user_agent`` of the hit at ``seen_at``;
    ``marketing`` and ``sale`` the person's newest choices (``sale``: :data:`ALLOWED`, :data:`OPTED_OUT` or
    :data:`LIMITED`) and when they were made; ``subjects`` whose it is, for erasure. Times are Unix seconds.
    ``is_saved``: it is in the store as it is here.
    """

    # defaults of the class: one is made for most hits, and few have more than a click
    expires: int = 0
    is_saved: bool = False
    clicks: dict[str, str] | None = None
    click_at: float = 0.0
    ip: str | None = None
    user_agent: str | None = None
    seen_at: float = 0.0
    marketing: bool | None = None
    marketing_at: float = 0.0
    sale: int | None = None
    sale_at: float = 0.0

    def __init__(self, subjects: tuple[bytes, ...] = ()) -> None:
        self.subjects = subjects

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to keep."""
        has_choice = self.marketing is not None or self.sale is not None
        return not has_choice and self.clicks is None and self.ip is None and self.user_agent is None

    def blank(self) -> None:
        """Forget everything, in whatever hands this object is."""
        self.clicks = self.ip = self.user_agent = self.marketing = self.sale = None
        self.subjects = ()


#: The values of :attr:`Remembered.sale`: the sale of data is allowed, opted out of (as inferred from a signal), or the
#: source said itself that the data are limited.
ALLOWED, OPTED_OUT, LIMITED = 0, 1, 2


class Memorandum(NamedTuple):
    """One key and what is to be remembered under it; ``since`` (Unix s) is the event time that it came with."""

    digest: bytes
    record: Remembered
    since: float
