"""What an operator may set in ``[sources.NAME.options]``."""

from typing import Literal

from gateway import Struct


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Options of a ``gtm`` source.

    ``view_item`` is what Google's ``view_item`` becomes: Pinterest's own template sends ``page_visit``,
    stape's sends ``view_content``. ``unknown`` is what happens to names that no table knows: ``custom`` hands
    them on (as they are where the destination knows them as advertiser-defined, else as ``custom``), ``drop``
    acknowledges them and sends nothing.
    """

    view_item: Literal["page_visit", "view_content"] = "page_visit"
    unknown: Literal["custom", "drop"] = "custom"
