"""Which account of a sink is meant where a command names none: the operator's choice at ``audiences login``."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gateway.audience import AudienceError, AudienceSink, Group

FILE = "audience-accounts.json"


class Accounts:
    """
    The choices, in a file beside the store, replaced in one step.

    Args:
        path: The file; its folder exists. ``sinks`` by name.
    """

    def __init__(self, path: Path, sinks: Mapping[str, AudienceSink]) -> None:
        self._path = path
        self._sinks = sinks

    def chosen(self, sink: str) -> str:
        """
        Return the chosen account's id, "" for none.

        Raises:
            AudienceError: The file is damaged.
        """
        return self._read().get(sink, "")

    async def of(self, sink: str, account: str = "") -> Group:
        """
        Return the account that is meant: the one named (by id or name), else the chosen one, else the only one.

        Raises:
            AudienceError: It is not among those that the credentials open, or there are several and none was chosen.
        """
        known = list(await self._sinks[sink].accounts())
        wanted = account or self.chosen(sink)
        for one in known:
            if wanted and (one.id == wanted or one.name.casefold() == wanted.casefold()):
                return one
        listed = ", ".join(f"{one.id} ({one.name})" if one.name else one.id for one in known[:20])
        if wanted:
            raise AudienceError(
                f"The account '{wanted}' is not open to these credentials. Open are {listed or 'none'}."
            )
        if len(known) == 1:
            return known[0]
        if not known:
            raise AudienceError(f"'{sink}' opens no account: grant these credentials access to one.")
        raise AudienceError(f"'{sink}' opens several accounts, name one by --account: {listed}.")

    def choose(self, sink: str, account: str) -> None:
        """
        Keep a choice.

        Raises:
            AudienceError: The file cannot be written.
        """
        found = {**self._read(), sink: account}
        fresh = self._path.with_name(f".{self._path.name}.new")
        try:
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(msgspec.json.encode(found))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            raise AudienceError(f"{self._path} cannot be written ({error.strerror}).") from error

    def _read(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            raise AudienceError(f"{self._path} cannot be read: remove it and choose the account again.") from error
