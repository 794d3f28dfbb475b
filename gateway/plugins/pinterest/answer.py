"""
What an answer of ``events/create`` means for each event of the call. Pure: no clock, no I/O.

Source: Pinterest's OpenAPI description, 5.23.0 (``ConversionApiResponse``, ``Error``, ``DetailedError``). The shape of
``details`` in a 422 is documented nowhere, so the per-event list is looked for there and at the top. A list counts only
when it has one known status for each event sent; of anything else nobody can say which event it speaks of.
"""

import re
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from gateway import Answer, Delivered, Paused, Refused, Result, Retry, Unclear, Verdict

#: The longest ``Retry-After`` that is obeyed, in seconds.
MAX_RETRY_AFTER_S = 900.0
#: Characters of the vendor's own wording that are kept.
MAX_MESSAGE = 300

_RAMPED_DOWN = 4197
_PAUSED = {401: "unauthorized", 403: "forbidden", 404: "not_found"}
#: The request may have been taken: 408 and 425 are about its timing, 423 about a lock that passes.
_PASSING = frozenset({408, 423, 425})
_REFUSED_WHOLE = {400: "invalid_request", 413: "too_large", 422: "not_processed"}
#: An event that failed for a reason of Pinterest's own may succeed later.
_TEMPORARY = re.compile(
    r"\brate.?limit|\btoo many (?:requests|calls)|\bthrottl|\boverload|\btemporar|\btime[d-]? ?out|\bunavailable"
    r"|\btry again|\bretry\b|\binternal\b(?! use)",
    re.IGNORECASE,
)
_DELIVERED = Delivered()


def verdict(answer: Answer, count: int, now: float) -> Verdict:
    """
    Judge one answer.

    Args:
        answer: Header names in lower case.
        count: Events in the call.
        now: Unix seconds, for a ``Retry-After`` that is a date.

    Returns:
        One result for each event in order, or one verdict for the call.
    """
    status = answer.status
    if 200 <= status < 300 or status in _REFUSED_WHOLE:
        body = _decoded(answer.body)
        results = _results(body, count)
        if results is not None:
            return results
        if status < 300:
            return Retry(reason="unreadable_answer", ambiguous=True)
        return Unclear(reason=_with_words(_REFUSED_WHOLE[status], body.get("message")))
    if status == 429:
        return Retry(reason="rate_limited", after_s=retry_after_s(answer, now))
    if status >= 500:
        ramped_down = status == 503 and _decoded(answer.body).get("code") == _RAMPED_DOWN
        reason = "ramped_down" if ramped_down else f"status_{status}"
        return Retry(reason=reason, after_s=retry_after_s(answer, now), ambiguous=not ramped_down)
    if status in _PASSING:
        return Retry(reason=f"status_{status}", after_s=retry_after_s(answer, now), ambiguous=True)
    if 300 <= status < 400:
        return Paused(reason="redirected")
    return Paused(reason=_PAUSED.get(status, f"status_{status}"))


def retry_after_s(answer: Answer, now: float) -> float | None:
    """Return the vendor's wish in seconds, at most 900; None when it says nothing readable, or nothing to wait."""
    text = answer.headers.get("retry-after", "").strip()
    if not text or len(text) > 64 or not text.isascii():
        return None
    if text.isdigit():
        wait = float(text)
    else:
        try:
            moment = parsedate_to_datetime(text)
            wait = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    return min(wait, MAX_RETRY_AFTER_S) if wait > 0 else None


def _decoded(body: bytes) -> dict[str, Any]:
    """Return the body's object, an empty one for anything else."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _results(body: dict[str, Any], count: int) -> Sequence[Result] | None:
    """Return one result for each event, None when the answer does not say."""
    details = body.get("details")
    for report in (body, details if isinstance(details, dict) else {}):
        statuses = report.get("events")
        if isinstance(statuses, list) and len(statuses) == count and all(map(_is_status, statuses)):
            return _judged(statuses, report.get("num_events_processed"))
    return None


def _is_status(found: object) -> bool:
    return isinstance(found, dict) and found.get("status") in ("processed", "failed")


def _judged(statuses: list[dict[str, Any]], counted: object) -> Sequence[Result]:
    processed = sum(status["status"] == "processed" for status in statuses)
    good = _DELIVERED
    if isinstance(counted, int) and not isinstance(counted, bool) and counted != processed:
        good = Delivered(
            warning=f"Pinterest counted {counted} of {len(statuses)} events as processed, its list {processed}"
        )
    return [_result(status, good) for status in statuses]


def _result(status: dict[str, Any], good: Delivered) -> Result:
    if status["status"] == "processed":
        warning = status.get("warning_message")
        return Delivered(warning=scrubbed(warning)) if warning and isinstance(warning, str) else good
    message = status.get("error_message")
    if isinstance(message, str) and _TEMPORARY.search(message[:MAX_MESSAGE]):
        return Retry(reason=_with_words("failed_for_now", message))
    return Refused(reason=_with_words("refused", message))


def _with_words(code: str, message: object) -> str:
    words = scrubbed(message)
    return f"{code}: {words}" if words else code


#: Patterns are bounded, so that a hostile text costs no more than a friendly one.
_EMAIL = re.compile(r"[^\s@'\"<>]{1,64}@[^\s@'\"<>]{1,255}")
_PERSONAL = (
    (re.compile(r"https?://[^\s'\"<>]+", re.IGNORECASE), "[url]"),
    (re.compile(r"[0-9a-fA-F]{16,}"), "[hash]"),
    (re.compile(r"(?:[0-9a-fA-F]{0,4}:){3,7}[0-9a-fA-F]{0,4}|(?:[0-9]{1,3}\.){3}[0-9]{1,3}"), "[address]"),
    (re.compile(r"\+?[0-9](?:[ ().-]{0,2}[0-9]){6,}"), "[number]"),
    (re.compile(r"([\"'])[^\"']{49,}\1"), "[text]"),
    (re.compile(r"[^\s\[\]]{49,}"), "[text]"),
)


def scrubbed(message: object) -> str:
    """
    Return the vendor's wording without what may be personal: one line, at most 300 characters; "" for none.

    Replaced are e-mail and IP addresses, URLs, hashes, numbers of seven digits or more, long words and quotations.
    """
    if not isinstance(message, str) or not message:
        return ""
    text = " ".join(message[: 2 * MAX_MESSAGE].split())
    if "@" in text:
        text = _EMAIL.sub("[e-mail]", text)
    for pattern, name in _PERSONAL:
        text = pattern.sub(name, text)
    return "".join(char for char in text if char.isprintable())[:MAX_MESSAGE]
