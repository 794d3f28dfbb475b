"""What is kept, where and for how long: the table of docs/operations.md with the times of this configuration."""

from gateway.config import Config
from gateway.event import Struct
from gateway.operator.pages.templating import span

#: Fixed in the store: see ``docs/operations.md``.
_ERASURE_S, _ADDRESS_S = 2_592_000, 86_400


class KeptRow(Struct, frozen=True, kw_only=True):
    """One kind of data."""

    what: str
    where: str
    life: str


def kept_rows(config: Config) -> list[KeptRow]:
    """Return the rows; the full table, with backups and damaged stores, is in the documents."""
    pipeline, quarantine = config.pipeline, config.quarantine
    memory = span(pipeline.memory_s) if pipeline.memory_s else "not at all: memory_s is 0"
    unread = span(quarantine.keep_s) if quarantine.key is not None else "not at all: [quarantine] has no key"
    rows = (
        ("Identifiers in clear", "memory", "one request"),
        (
            "Waiting events: hashed identifiers, IP address, user agent, click id, page address, goods", "store",
            f"until delivered, at most {span(pipeline.retry_life_s)}, then dead",
        ),
        ("Dead letters: the same", "store", span(pipeline.dead_keep_s)),
        ("Marks of event ids", "store, as keyed hashes", span(pipeline.dedup_window_s)),
        ("Marks of orders, checkouts, offline events", "store, as keyed hashes", span(pipeline.business_key_s)),
        ("Refused consent, erasures", "store, as keyed hashes", span(_ERASURE_S)),
        ("Remembered click ids and choices", "store, under keyed hashes", memory),
        (
            "Remembered IP addresses and user agents", "store, under keyed hashes",
            span(min(_ADDRESS_S, pipeline.memory_s)) if pipeline.memory_s else memory,
        ),
        (
            "The latest outcomes: hashed identifiers, IP address, user agent", "memory",
            "until 10,000 newer ones, or a restart",
        ),
        ("Counts by hour, source, event and fate: nothing personal", "store", span(pipeline.rollup_keep_s)),
        ("Hits that could not be read, encrypted", "quarantine/ beside the store", unread),
        ("Exports of a person", "exports/ beside the store", "until you delete them"),
        (
            "Members of mirrored lists: profile ids, SHA-256 of e-mail addresses", "audiences.db beside the store",
            "until the connection ends",
        ),
        ("Pinterest's quality scores: nothing personal", "quality.jsonl beside the store", "400 days"),
        ("Backups", "where you put them", "as you decide; an erasure does not reach them"),
    )  # fmt: skip
    return [KeptRow(what=what, where=where, life=life) for what, where, life in rows]
