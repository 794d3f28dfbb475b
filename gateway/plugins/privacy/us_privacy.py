"""The US privacy string: version, notice given, opt-out of sale, LSPA; four characters."""

import re

#: Source: IAB Tech Lab, USPrivacy, "US Privacy String", version 1 (March 2020): "1", then "Y", "N" or "-" three times.
_STRING = re.compile(r"1[YN-]([YN-])[YN-]", re.IGNORECASE | re.ASCII)


def is_opt_out(text: str) -> bool | None:
    """Whether the person opted out of sale; None for what is no string of version 1. ``1---`` is no opt-out."""
    found = _STRING.fullmatch(text.strip())
    return None if found is None else found[1] in "Yy"
