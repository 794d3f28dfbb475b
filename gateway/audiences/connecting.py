"""Finding both sides of a new connection by id or name, and refusing what may not be connected."""

from collections.abc import Sequence

from gateway.audience import AudienceError, AudienceSink, AudienceSource, Group
from gateway.audiences.records import Connected
from gateway.audiences.sides import Sides
from gateway.audiences.store import Store


class Connecting:
    """Makes connections, and lookalikes of what they feed."""

    def __init__(self, store: Store, sides: Sides) -> None:
        self._store = store
        self._sides = sides

    async def connect(
        self,
        source: str,
        kind: str,
        group: str,
        sink: str,
        account: str,
        audience: str | None,
        create: str | None,
        *,
        remove: bool,
        dry_run: bool,
    ) -> Connected:
        """See :meth:`gateway.audiences.Audiences.connect`."""
        if (audience is None) == (create is None):
            raise AudienceError("Name either an existing audience (--audience) or a new one (--create).")
        reader, writer = self._sides.source(source), self._sides.sink(sink)
        account = await self._account(writer, account)
        found = await self._group(reader, kind, group)
        target: Group | str
        if create is None:
            target = await self._audience(writer, account, audience or "")
        else:
            target = await self._new_name(writer, account, create)
        row = await self._store.insert(source, found, sink, account, target, remove=remove, dry_run=dry_run)
        return Connected(status=row.status(), notes=_notes(found, target, remove=remove), dry_run=dry_run)

    async def _account(self, sink: AudienceSink, account: str) -> str:
        accounts = await self._sides.call(sink.accounts)
        listed = ", ".join(f"{each.id} ({each.name})" for each in accounts) or "none"
        if not account and len(accounts) == 1:
            return accounts[0].id
        matching = [each for each in accounts if account and account in (each.id, each.name)]
        if len(matching) != 1:
            what = f'There is no account "{account}"' if account else "Choose an account (--account)"
            raise AudienceError(f"{what}; the credentials open: {listed}.")
        if matching[0].refusal:
            raise AudienceError(f'Account "{matching[0].name}" cannot be used: {matching[0].refusal}')
        return matching[0].id

    async def _group(self, source: AudienceSource, kind: str, wanted: str) -> Group:
        groups = await self._sides.call(lambda: source.groups(wanted))
        found = _only([each for each in groups if kind in ("", each.kind)], wanted, kind or "list or segment")
        if found is None and not kind:
            everything = await self._sides.call(source.groups)
            found = next((each for each in everything if each.id == wanted), None)
            if found is None:
                raise AudienceError(f'There is no list or segment "{wanted}" at {source.name}: name one that is there.')
        group_id, group_kind = (found.id, found.kind) if found else (wanted, kind)
        current = await self._sides.call(lambda: source.group(group_kind, group_id))
        if current.refusal:
            raise AudienceError(f'{current.kind.capitalize()} "{current.name}" cannot be connected: {current.refusal}')
        return current

    async def _audience(self, sink: AudienceSink, account: str, wanted: str) -> Group:
        groups = await self._sides.call(lambda: sink.groups(account, wanted))
        found = _only(groups, wanted, "audience")
        if found is None:
            found = await self._sides.call(lambda: sink.group(account, wanted))
        if found.refusal:
            raise AudienceError(f'Audience "{found.name}" cannot be connected: {found.refusal}')
        return found

    async def _new_name(self, sink: AudienceSink, account: str, name: str) -> str:
        name = name.strip()
        if not name:
            raise AudienceError("The new audience needs a name (--create NAME).")
        for each in await self._sides.call(lambda: sink.groups(account, name)):
            if each.name.casefold() == name.casefold():
                raise AudienceError(
                    f'There is an audience "{each.name}" already: connect to it with --audience {each.id}, '
                    "or choose another name."
                )
        return name

    async def create_lookalike(self, number: int, name: str, country: str, percent: int) -> Group:
        """See :meth:`gateway.audiences.Audiences.create_lookalike`."""
        row = await self._store.connection(number)
        if not 1 <= percent <= 10:
            raise AudienceError("percent must be from 1 to 10.")
        if len(country) != 2 or not country.isalpha():
            raise AudienceError("country must be a code of two letters, such as US.")
        if row.audience is None:
            raise AudienceError(f"The audience of connection {number} is not created yet: sync it first.")
        sink, audience = self._sides.sink(row.sink), row.audience
        return await self._sides.call(
            lambda: sink.create_lookalike(row.account, name, audience, country.upper(), percent), tries=1
        )


def _only(groups: Sequence[Group], wanted: str, what: str) -> Group | None:
    """Return the group of that id or name (in the same case, else in any); several of one name are an error."""
    for matching in (
        [each for each in groups if each.id == wanted],
        [each for each in groups if each.name == wanted],
        [each for each in groups if each.name.casefold() == wanted.casefold()],
    ):
        if len(matching) > 1:
            ids = ", ".join(f"{each.kind} {each.id}".strip() for each in matching)
            raise AudienceError(f'More than one {what} is called "{wanted}": give one of these ids: {ids}.')
        if matching:
            return matching[0]
    return None


def _notes(group: Group, audience: Group | str, *, remove: bool) -> tuple[str, ...]:
    notes = []
    if isinstance(audience, Group) and remove:
        notes.append(
            "Members that the audience has already stay. Nobody can be told from a list of hashes, though: people who "
            f"are both in the audience and in this {group.kind or 'list'} count as added by it, and leave with it. "
            "To remove nobody, connect with --no-remove."
        )
    if not remove:
        notes.append("Nobody is ever removed from the audience by this connection.")
    if group.state != "ready":
        notes.append(f"The {group.kind or 'list'} is {group.state} at the source: who leaves is told once it is ready.")
    return tuple(notes)
