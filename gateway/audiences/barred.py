"""
Who is left out of audiences because the gateway knows that they said no: opted out, consent refused, or erased.

The gateway keeps choices and erasures under keyed hashes of an e-mail's SHA-256, a hash for each site. Limited data
processing does not reach lists of people, so at an audience the only way to respect the choice is to leave out.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence

from gateway.outbox import LIMITED, OPTED_OUT, Outbox, Remembered
from gateway.trail import drop_stale

#: So many people are looked up before other work gets its turn.
_SLICE = 500


class Refusals:
    """
    Says which e-mails are barred; made once for a gateway.

    Args:
        outbox: Where choices and erasures are kept.
        sites: Gives the names of the sites; a choice at one of them counts for all lists.
        clock: Wall time, Unix seconds.
        life_s: Gives how long a choice is remembered, as ``[pipeline] memory_s`` says.
    """

    def __init__(
        self,
        outbox: Outbox,
        sites: Callable[[], Collection[str]],
        clock: Callable[[], float],
        life_s: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._sites = sites
        self._clock = clock
        self._life_s = life_s

    async def __call__(self, hashes: Sequence[str]) -> set[str]:
        """
        Return those of the e-mails (SHA-256, hex) that no audience may have.

        Raises:
            Unavailable: The store cannot be read; without it nobody may be added.
        """
        found: set[str] = set()
        for start in range(0, len(hashes), _SLICE):
            found |= await self._some(hashes[start : start + _SLICE])
            await asyncio.sleep(0)
        return found

    async def _some(self, hashes: Sequence[str]) -> set[str]:
        outbox, erasures = self._outbox, self._outbox.erasures
        found: set[str] = set()
        asked: dict[bytes, str] = {}
        for site in self._sites():
            for email in hashes:
                subject = outbox.digest("subject", site, "email", email)
                if subject in erasures:
                    found.add(email)
                elif outbox.may_remember(subject):
                    asked[subject] = email
        if asked:
            now, life_s = self._clock(), self._life_s()
            for subject, record in (await outbox.recall(list(asked))).items():
                drop_stale(record, now, life_s)
                if _said_no(record):
                    found.add(asked[subject])
        return found


def _said_no(record: Remembered) -> bool:
    return record.marketing is False or record.sale in (OPTED_OUT, LIMITED)
