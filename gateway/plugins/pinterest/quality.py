"""
Pinterest's event quality score (EQS): what it says of the events it got.

Source: OpenAPI 5.23.0, ``conversion_eqs/list``: scope ``ads:read``, ``lookback_period`` ``1d`` or ``14d``; an answer
is a list of scores with components, each by event. A conversion token opens ``events/create`` alone.
"""

from collections.abc import Mapping

import msgspec

from gateway import Answer, Component, HttpClient, Quality, Score, Struct, Unreachable
from gateway.plugins.pinterest.options import PinterestOptions

LOOKBACKS = ("1d", "14d")
#: Of one answer: scores, components with their events, issues, and letters of a text of Pinterest's that are kept.
_MOST_SCORES, _MOST_COMPONENTS, _MOST_ISSUES, _MOST_LETTERS = 50, 500, 5, 300
_TIMEOUT_S = 10.0


class _Issue(Struct, frozen=True, kw_only=True):
    name: str = ""
    reason: str = ""


class _Detail(Struct, frozen=True, kw_only=True):
    coverage: float
    overlap: float | None = None
    issues: tuple[_Issue, ...] | None = None


class _Score(Struct, frozen=True, kw_only=True):
    overall_status: str
    quality_components: Mapping[str, Mapping[str, _Detail] | None]
    ingestion_source: str
    source_platform: str
    lookback_period: str


_decoder = msgspec.json.Decoder(tuple[_Score, ...])


async def read_quality(http: HttpClient, options: PinterestOptions, name: str, lookback: str) -> Quality:
    """
    Ask once; ``name`` is the destination's, for messages.

    Raises:
        ValueError: There is no such lookback.
    """
    if lookback not in LOOKBACKS:
        raise ValueError(f"lookback must be one of {', '.join(LOOKBACKS)}.")
    token = options.quality_token or options.token
    base = f"{options.base_url.rstrip('/')}/ad_accounts/{options.ad_account_id}/conversion_eqs"
    try:
        answer = await http.request(
            "GET",
            f"{base}?lookback_period={lookback}",
            headers={"authorization": f"Bearer {token.value.strip()}", "accept": "application/json"},
            timeout_s=min(options.timeout_s, _TIMEOUT_S),
        )
    except Unreachable as error:
        return Quality(problem=f"Pinterest gave no event quality score: {error}. It is asked again later.")
    if answer.status != 200:
        return Quality(problem=_words(answer, f"[destinations.{name}]", options))
    try:
        scores = _decoder.decode(answer.body)
    except (msgspec.DecodeError, RecursionError):
        return Quality(problem="Pinterest's event quality score cannot be read: its form has changed.")
    return Quality(scores=tuple([_score(one) for one in scores[:_MOST_SCORES]]))


def _words(answer: Answer, where: str, options: PinterestOptions) -> str:
    if answer.status in (401, 403):
        remedy = f"set {where} quality_token to an OAuth token with that scope"
        if options.quality_token is not None:
            remedy = (
                f"make a new one for {where} quality_token, of a user who may see ad account {options.ad_account_id}"
            )
        return f"The token lacks ads:read, or has expired ({answer.status}): {remedy}. Deliveries do not need it."
    if answer.status == 404:
        return f"Pinterest knows no ad account {options.ad_account_id} (404): check {where} ad_account_id."
    if answer.status == 429:
        return "Pinterest's rate limit is used up (429); the score is asked for again later."
    return f"Pinterest gave no event quality score ({answer.status}); it is asked for again later."


def _score(told: _Score) -> Score:
    components = [
        Component(name=_cut(component), event=_cut(event), coverage=detail.coverage, overlap=detail.overlap,
                  issues=_issues(detail))
        for component, events in told.quality_components.items()
        for event, detail in (events or {}).items()
    ]  # fmt: skip
    return Score(
        status=_cut(told.overall_status),
        platform=_cut(told.source_platform),
        ingestion=_cut(told.ingestion_source),
        lookback=_cut(told.lookback_period),
        components=tuple(components[:_MOST_COMPONENTS]),
    )


def _issues(detail: _Detail) -> tuple[str, ...]:
    return tuple(_cut(f"{one.name}: {one.reason}".strip(": ")) for one in (detail.issues or ())[:_MOST_ISSUES])


def _cut(text: str) -> str:
    return text[:_MOST_LETTERS]
