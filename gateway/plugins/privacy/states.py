"""
The US states with a comprehensive consumer-privacy law: an opt-out of sale and targeted advertising for everybody.

Sources, read 2026-11: the laws' own effective dates, as in the trackers of privacylawmap.com ("How many states have
data privacy laws in 2026", 2026-03), myprivacy.blog ("20 state privacy laws", 2026) and codamail.com's directory of
state laws (2026-06), which agree on every date here; California: Cal. Civ. Code 1798.198. Florida's law covers few
companies and is left out of some counts; it is listed, for a state too many costs little and one too few a person's
choice. Laws about one kind of data or of person only (Washington's health data, Arkansas' children) are not listed.
"""

from datetime import date

#: By state: the day from which the law applies.
LAWS: dict[str, date] = {
    "CA": date(2020, 1, 1),
    "VA": date(2023, 1, 1),
    "CO": date(2023, 7, 1),
    "CT": date(2023, 7, 1),
    "UT": date(2023, 12, 31),
    "FL": date(2024, 7, 1),
    "OR": date(2024, 7, 1),
    "TX": date(2024, 7, 1),
    "MT": date(2024, 10, 1),
    "DE": date(2025, 1, 1),
    "IA": date(2025, 1, 1),
    "NE": date(2025, 1, 1),
    "NH": date(2025, 1, 1),
    "NJ": date(2025, 1, 15),
    "TN": date(2025, 7, 1),
    "MN": date(2025, 7, 31),
    "MD": date(2025, 10, 1),
    "IN": date(2026, 1, 1),
    "KY": date(2026, 1, 1),
    "RI": date(2026, 1, 1),
    "LA": date(2027, 1, 1),
    "OK": date(2027, 1, 1),
    "AL": date(2027, 5, 1),
}

#: Every state, and the District of Columbia. Source: ISO 3166-2:US.
STATES: frozenset[str] = frozenset(
    {
        "AK", "AL", "AR", "AZ", "CA", "CO", "CT", "DC", "DE", "FL", "GA", "HI", "IA", "ID", "IL", "IN", "KS", "KY",
        "LA", "MA", "MD", "ME", "MI", "MN", "MO", "MS", "MT", "NC", "ND", "NE", "NH", "NJ", "NM", "NV", "NY", "OH",
        "OK", "OR", "PA", "RI", "SC", "SD", "TN", "TX", "UT", "VA", "VT", "WA", "WI", "WV", "WY",
    }
)  # fmt: skip


def in_force(day: date) -> frozenset[str]:
    """Return the states whose law applies on this day."""
    return frozenset(state for state, since in LAWS.items() if since <= day)
