"""
From a hit to committed units: verify, normalize, name, enrich, recall, seal, admit.

One hit is one commit, and a reply is made only after it. Every plugin call is guarded here: what raises costs its own
hit only.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from gateway.compliance import Compliance
from gateway.draft import Draft, best_of, outcome_of
from gateway.errors import PluginFailed, Rejected, Unavailable
from gateway.event import STANDARD_NAMES, Alarm, Event, Invalid, Normalized, SealedEvent, Skipped, Struct
from gateway.hit import Hit, Source
from gateway.identity import Windows, identify, marks_of, moment
from gateway.interfaces import Destination, Enricher, Identifiers
from gateway.isolation import FAILURES, Guard
from gateway.memory import ORDER, Memory, Trail
from gateway.merge import join
from gateway.outbox import Admission, Kind, Lane, Outbox, Unit, kind_of
from gateway.outcome import Fate, Outcome, Settled
from gateway.reading import read, unreadable
from gateway.seal import Facts, seal
from gateway.subjects import Person, person_of, site_subjects

#: Called at each step of ``explain``: name of the step, and what there is after it.
Trace = Callable[[str, Any], None]


class Route(Struct, frozen=True, kw_only=True):
    """
    A source, wired: its adapter, its destinations in order, its site's rules. ``inline``: the adapter is ours.

    ``held_for`` names the destinations that several sources of the site feed: a checkout for them waits up to
    ``hold_s`` for its other half. ``signed_checkout``: a public checkout is sent only with a signed copy of it.
    """

    source: Source
    adapter: Any  # Adapter; an ABC cannot be a Struct field type
    destinations: tuple[Any, ...]  # of Destination
    inline: bool = True
    id_template: str = "{site}-{order_id}"
    max_bytes: int = 1_048_576
    hold_s: float = 0.0
    held_for: frozenset[str] = frozenset()
    signed_checkout: bool = False


class Reply(Struct, frozen=True, kw_only=True):
    """
    The answer to one hit.

    ``items`` holds for each thing the hit told its outcomes, one per destination; ``fates`` the one each counts under.
    ``quarantined``: nobody could read the hit, and it is kept as it is.
    """

    items: tuple[tuple[Outcome, ...], ...] = ()
    fates: tuple[Fate, ...] = ()
    messages: tuple[str, ...] = ()
    quarantined: bool = False

    def count(self, fate: Fate) -> int:
        """Return how many events have this as their best fate."""
        return self.fates.count(fate)

    @property
    def is_refused(self) -> bool:
        """Whether nothing in the hit was good."""
        return bool(self.fates) and all(fate == "rejected" for fate in self.fates)


class Pipeline:
    """
    Turns hits into units.

    Args:
        outbox: Where units go. ``memory`` recalls between the enrichers that complete an event and those that guard
            its privacy; ``enrichers`` are in order. ``guard`` isolates strangers' plugins.
        windows: How long marks live.
        clock: Wall time, Unix seconds.
        alarm: Called with (reason, message, source) for what an operator must hear.
        observe: Called with each reply, for metrics.
        settled: Called with each unit that a hit ended (a withdrawn or erased one).
        erased: Called with the subjects of each erasure, once the outbox has none of them.
        judge: Called with what a hit brought; raises Unavailable when it must make room for others.
        watch: Called with the source's name and each event that was completed, once.
        told: Called with the source's name, each outcome, and its sealed event (None: decided before there was one).
        strangers: Names of enrichers that are not ours: they have a deadline.
    """

    def __init__(
        self,
        outbox: Outbox,
        memory: Memory,
        enrichers: Sequence[Enricher],
        guard: Guard,
        windows: Windows,
        clock: Callable[[], float],
        alarm: Callable[[str, str, str], None],
        observe: Callable[[Source, Reply], None],
        settled: Callable[[Settled], None],
        erased: Callable[[Sequence[bytes]], None] = lambda _subjects: None,
        judge: Callable[[Source, Sequence[Normalized]], None] = lambda _source, _items: None,
        watch: Callable[[str, Event], None] = lambda _source, _event: None,
        told: Callable[[str, Outcome, SealedEvent | None], None] = lambda _source, _outcome, _event: None,
        strangers: Collection[str] = (),
    ) -> None:
        self._outbox = outbox
        self._memory = memory
        guards = [index for index, one in enumerate(enrichers) if one.on_error == "refuse" and one.order >= ORDER]
        split = min(guards, default=len(enrichers))
        self._before, self._after = tuple(enrichers[:split]), tuple(enrichers[split:])
        self._guard = guard
        self._windows = windows
        self._clock = clock
        self._alarm = alarm
        self._observe = observe
        self._settled = settled
        self._judge, self._watch, self._told = judge, watch, told
        self._strangers = frozenset(strangers)
        self._compliance = Compliance(outbox, memory, clock, alarm, settled, erased)

    async def handle(self, route: Route, hit: Hit, *, replay: str = "") -> Reply:
        """
        Take one hit in; returns after the durable commit.

        ``replay`` is the id of a quarantined hit: it was verified before it was kept, and may be taken in twice.

        Raises:
            Rejected: The hit as a whole is not acceptable.
            Unreadable: It is authentic, and cannot be read by a bug; nothing was accepted.
            Unavailable: Nothing was accepted; the sender should try again.
        """
        drafts = await self.prepare(route, hit, verify=not replay, replay=replay)
        units = [entry[1] for draft in drafts for entry in draft.units]
        memories = [memory for draft in drafts for memory in draft.memories]
        admissions: Iterator[Admission] = iter(())
        if units or memories:
            try:
                admissions = iter(await self._outbox.admit(units, join, memories))
            except BaseException:
                self._memory.forget(memories)
                for unit in units:
                    self._memory.forget(unit.memories)
                raise
        for draft in drafts:
            self._conclude(hit.source.name, draft, admissions)
        reply = Reply(
            items=tuple([tuple(draft.outcomes) for draft in drafts]),
            fates=tuple([best_of(draft.outcomes) for draft in drafts]),
            messages=tuple([draft.message for draft in drafts]),
        )
        self._observe(hit.source, reply)
        return reply

    def _conclude(self, source: str, draft: Draft, admissions: Iterator[Admission]) -> None:
        """Give a draft its outcomes, and tell them."""
        for outcome in draft.outcomes:
            self._told(source, outcome, None)
        for event_id, unit, notes in draft.units:
            admission = next(admissions)
            outcome = outcome_of(event_id, unit, notes, admission)
            draft.outcomes.append(outcome)
            self._told(source, outcome, admission.event or unit.event)
            for ended in admission.ended:
                self._settled(ended)

    async def rehearse(self, drafts: Sequence[Draft]) -> list[Admission]:
        """Return what admission would say of the drafts' units now; nothing is committed."""
        return await self._outbox.rehearse([entry[1] for draft in drafts for entry in draft.units], join)

    async def prepare(
        self, route: Route, hit: Hit, trace: Trace | None = None, *, verify: bool = True, replay: str = ""
    ) -> list[Draft]:
        """
        Do everything short of admission; with ``trace`` each step is told, and compliance requests are not carried out.
        """
        items = await self.read(route, hit, verify=verify)
        if trace is not None:
            trace("normalized", items)
        elif not replay:
            self._judge(route.source, items)
        drafts = []
        try:
            for index, item in enumerate(items):
                if isinstance(item, Event):
                    drafts.append(await self._draft(route, hit, item, trace, f"{replay}:{index}" if replay else ""))
                else:
                    drafts.append(await self._aside(route, hit, item, act=trace is None))
        except PluginFailed as error:
            raise unreadable(error) from error
        except (Rejected, Unavailable, OSError):  # the last: the machine is at fault, not what was read
            raise
        except Exception as error:  # what the adapter returned is no event, however much it looks like one
            raise unreadable(self._guard.failure(route.adapter.name, error)) from error
        return drafts

    async def read(self, route: Route, hit: Hit, *, verify: bool) -> Sequence[Normalized]:
        """Return what the adapter makes of the hit; see :func:`gateway.reading.read`."""
        return await read(self._guard, route.adapter, hit, inline=route.inline, verify=verify)

    def peek(self, route: Route, hit: Hit) -> Sequence[Normalized]:
        """Return what our own adapter makes of a hit that was kept, nothing when it fails; neither counts."""
        try:
            return tuple(route.adapter.normalize(hit))
        except Exception:  # it failed before: that is why the hit was kept
            return ()

    async def _aside(self, route: Route, hit: Hit, item: Normalized, *, act: bool) -> Draft:
        """Deal with what is not an event."""
        if isinstance(item, Skipped):
            return Draft(
                Outcome(fate="dropped", event_id=item.event_id, event_name=item.source_name, reason=item.reason)
            )
        if isinstance(item, Invalid):
            where = item.message if item.message.startswith(item.field) else f"{item.field}: {item.message}"
            return Draft(Outcome(fate="rejected", event_id=item.event_id, reason=item.reason), message=where)
        if isinstance(item, Alarm):
            if act:
                self._alarm(item.reason, item.message, route.source.name)
            return Draft(Outcome(fate="accepted", event_name=item.source_name, reason=item.reason))
        if isinstance(item, Event):
            raise TypeError("an event is not aside")
        if act:
            await self._compliance.carry_out(route.source, item, hit.received_at)
        reason = "export" if item.scope == "export" else "erasure"
        return Draft(Outcome(fate="accepted", event_name=item.source_name, reason=reason))

    async def _draft(self, route: Route, hit: Hit, event: Event, trace: Trace | None, seed: str) -> Draft:
        source = route.source
        name = self._name(source, event)
        event_time, note = moment(event, hit.received_at)
        if note is not None:
            event = msgspec.structs.replace(event, notes=(*event.notes, note))
        if name != event.name:
            event = msgspec.structs.replace(event, name=name)
        enriched, trail = await self._enrich(event, hit, event_time, trace)
        denied = isinstance(enriched, Skipped)
        if isinstance(enriched, Skipped):
            if enriched.reason != "consent":
                return Draft(_dropped(event, name or event.source_name, enriched.reason))
        else:
            event = enriched
            if trace is None and not seed:
                self._watch(source.name, event)
        memories = self._memory.note(trail, None if denied else event) if trail.keys and trace is None else ()
        if not name:  # not wanted itself, but the click that it brought may be
            draft = Draft(_dropped(event, event.source_name, "unmapped"))
            draft.memories = memories
            return draft
        facts = Facts(
            name=name, identity=identify(event, source.site, route.id_template, seed), event_time=event_time,
            # a replayed one has its whole retry life before it
            accepted_at=self._clock() if seed else hit.received_at,
            source=source.name, site=source.site, is_server=source.is_server,
            notes=event.notes, origins=trail.origins,
            unsigned=route.signed_checkout and name == "checkout" and not source.is_server,
        )  # fmt: skip
        draft = Draft()
        draft.memories = memories
        person = trail.person if trail.user is event.user else self._person(source, event)
        for destination in route.destinations:
            self._add(draft, route, event, facts, person, destination, denied=denied, trace=trace)
        return draft

    def _person(self, source: Source, event: Event) -> Person:
        return person_of(self._outbox.digest, source.site, event.user, source.default_country)

    def _name(self, source: Source, event: Event) -> str:
        """Return the canonical name after the source's overrides, "" for an event that is not wanted."""
        override = source.event_names.get(event.source_name)
        return event.name if override is None else override

    async def _enrich(
        self, event: Event, hit: Hit, moment: float, trace: Trace | None
    ) -> tuple[Event | Skipped, Trail]:
        completed = await self._run(self._before, event, hit, trace)
        if isinstance(completed, Skipped):
            return completed, Trail(moment, b"")
        recalled, trail = await self._memory.recall(completed, hit.source, moment)
        if trace is not None and recalled is not completed:
            trace("recalled from memory", recalled)
        return await self._run(self._after, recalled, hit, trace), trail

    async def _run(self, enrichers: Sequence[Enricher], event: Event, hit: Hit, trace: Trace | None) -> Event | Skipped:
        for enricher in enrichers:
            try:
                call = enricher.enrich(event, hit)
                result = await (self._guard.awaited(enricher.name, call) if enricher.name in self._strangers else call)
            except FAILURES as error:  # a plugin may fail in any way
                # one that hung or is switched off is counted and logged already
                failure = error if isinstance(error, Unavailable) else self._guard.failure(enricher.name, error)
                if enricher.on_error == "refuse":
                    raise Unavailable("privacy_failed", failure.message, retry_after_s=30) from error
                event = msgspec.structs.replace(event, notes=(*event.notes, f"{enricher.name}: failed"))
                continue
            if trace is not None:
                trace(f"enriched by {enricher.name}", result)
            if result is None:
                return Skipped(reason=enricher.name, source_name=event.source_name)
            if isinstance(result, Skipped):
                return result
            event = result
        return event

    def _add(
        self,
        draft: Draft,
        route: Route,
        event: Event,
        facts: Facts,
        person: Person,
        destination: Destination,
        *,
        denied: bool,
        trace: Trace | None,
    ) -> None:
        """Seal the event for one destination and add its unit, or the outcome that needs none."""
        name = facts.name
        if name not in STANDARD_NAMES and name not in destination.custom_names:
            name = "custom"
        digest, site = self._outbox.digest, facts.site
        marks = marks_of(digest, destination.name, name, facts.identity, event, site, self._windows)
        if denied:
            # nothing personal is sealed: the tombstone needs keys and time only
            bare = Event(name=event.name, test=event.test, action_source=event.action_source)
            sealed = seal(bare, facts, name, _NOTHING, destination.name)
            unit = Unit(lane=_lane(destination.name, kind_of(sealed)), event=sealed, marks=marks, consent="denied")
            reason: str | None = "consent"
        else:
            country = route.source.default_country
            try:
                sealed = seal(event, facts, name, destination.identifiers(event.user, country), destination.name)
                reason = destination.refuse(sealed, facts.accepted_at)
            except Unavailable:
                raise
            except FAILURES as error:  # a plugin may fail in any way
                raise self._guard.failure(destination.name, error) from error
            if trace is not None:
                trace(f"sealed for {destination.name}", sealed)
            unit = Unit(
                lane=_lane(destination.name, kind_of(sealed)),
                event=sealed,
                marks=marks,
                subjects=site_subjects(digest, site) + person.all,
                consent="granted" if event.consent.marketing is True else None,
                refusal=reason,
                hold_s=_hold_s(route, destination.name, sealed),
            )
        if marks or reason is None:
            if draft.memories:
                unit, draft.memories = msgspec.structs.replace(unit, memories=draft.memories), ()
            draft.units.append((facts.identity.event_id, unit, sealed.notes))
            return
        draft.outcomes.append(
            Outcome(
                fate="dropped",
                event_id=facts.identity.event_id,
                event_name=name,
                destination=destination.name,
                reason=reason,
                notes=sealed.notes,
                is_test=event.test,
            )
        )


#: Source: the project's design, *Hold and merge*: within the hour that counts as live, with time left for the call.
_HELD_UNTIL_S = 3_300


def _hold_s(route: Route, destination: str, event: SealedEvent) -> float:
    """
    Return how long a checkout waits for its other half.

    One that is late does not wait; one that must not go without a signed copy waits for it as long as it can.
    """
    if event.event_name != "checkout" or destination not in route.held_for:
        return 0.0
    left = event.event_time + _HELD_UNTIL_S - event.accepted_at
    return max(left, route.hold_s) if event.unsigned else max(0.0, min(left, route.hold_s))


@lru_cache(256)
def _lane(destination: str, kind: Kind) -> Lane:
    return Lane(destination=destination, kind=kind)


_NOTHING = Identifiers()


def _dropped(event: Event, name: str, reason: str) -> Outcome:
    return Outcome(fate="dropped", event_id=event.id, event_name=name, reason=reason, notes=event.notes)
