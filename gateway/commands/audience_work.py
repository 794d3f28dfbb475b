"""What the commands of ``tag-gateway audiences`` do: ask the gateway, wait for its jobs, show what came of it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from gateway import config as configuration
from gateway.commands import audience_views as views
from gateway.commands.audience_progress import shown_on
from gateway.commands.control import Caller, call, is_running
from gateway.commands.render import plain_json
from gateway.errors import CommandFailed

API = "/api/audiences"
#: The state of a connection after a pass that an operator must look at.
_TROUBLE = frozenset({"held", "attention"})


class Work:
    """
    One command's work.

    Args:
        path: The configuration file. ``as_json``: the answer is for a program.
    """

    def __init__(self, path: Path, *, as_json: bool) -> None:
        self._path = path
        self._as_json = as_json
        self._out = Console(soft_wrap=True)
        self._err = Console(stderr=True, soft_wrap=True)

    def _ask(self, work: Callable[[Caller], Awaitable[Any]]) -> Any:
        return call(self._path, work)

    def _answer(self, answer: Any, view: Callable[[Console, Any], None]) -> None:
        if self._as_json:
            click.echo(plain_json(answer))
        else:
            view(self._out, answer)

    def _say(self, line: str) -> None:
        self._err.print(line, highlight=False, markup=False)

    async def _job(self, caller: Caller, path: str, body: Any) -> Any:
        """
        Start a job and show how far it is until its end; returns its result.

        Raises:
            CommandFailed: It failed.
        """
        job = (await caller.post(API + path, body))["job"]
        try:
            with shown_on(self._err) as shown:
                while True:
                    state = await caller.get(f"{API}/jobs/{job}", wait_s=shown.look_s)
                    shown.update(state["progress"] or [])
                    if state["state"] == "failed":
                        raise CommandFailed(state["error"])
                    if state["state"] == "done":
                        return state["result"]
        except asyncio.CancelledError:
            self._say("The gateway goes on with it: tag-gateway audiences status.")
            raise

    # -- logging in

    def login(self, name: str | None, account: str, *, again: bool) -> None:
        """Log in at one side, or at each in turn, and choose the account of each sink."""

        async def work(caller: Caller) -> Any:
            sides = await caller.get(f"{API}/sides")
            sinks, sources = ([one["name"] for one in sides[key]] for key in ("sinks", "sources"))
            done = {}
            for one in [name] if name is not None else [*sinks, *sources]:
                await self._login(caller, one, again=again)
                done[one] = await self._choose(caller, one, account) if one in sinks else None
            return {"logins": [{"name": one, "account": chosen} for one, chosen in done.items()]}

        self._answer(self._ask(work), views.logins)

    async def _login(self, caller: Caller, name: str, *, again: bool) -> None:
        begun = await caller.post(f"{API}/login", {"name": name, "again": again})
        if begun["problem"] is not None:
            raise CommandFailed(f"{name}: {begun['problem']}")
        if begun["url"] is None:
            return
        if not is_running(configuration.load(self._path).socket_path):
            raise CommandFailed(
                f"{name}: a login comes back to the running gateway: start 'tag-gateway serve', then log in."
            )
        self._say(f"Open this address in a browser, and grant access:\n\n{begun['url']}\n")
        self._say(f"Waiting for ten minutes for the browser to come back to {begun['redirect_uri']} (Ctrl-C gives up).")
        self._say("Where it cannot reach that: tag-gateway audiences login --answer 'THE ADDRESS IT ENDED ON'")
        while True:
            state = await caller.post(f"{API}/login/look", {"state": begun["state"], "wait_s": 5})
            if state["state"] == "failed":
                raise CommandFailed(f"{name}: {state['error']}")
            if state["state"] == "done":
                return

    async def _choose(self, caller: Caller, sink: str, account: str) -> Any:
        known = (await caller.get(f"{API}/accounts", sink=sink))["accounts"]
        wanted = account or next((one["id"] for one in known if one["chosen"]), "")
        if not wanted and len(known) > 1:
            if not self._err.is_terminal or self._as_json:
                listed = ", ".join(f"{one['id']} ({one['name']})" for one in known)
                raise CommandFailed(f"{sink}: logged in; several accounts, so run it again with --account: {listed}.")
            wanted = await asyncio.to_thread(self._prompt, known)
        return (await caller.post(f"{API}/account", {"sink": sink, "account": wanted}))["account"]

    def _prompt(self, known: list[dict[str, Any]]) -> str:
        for number, one in enumerate(known, 1):
            self._say(f"  {number}  {one['name']}  ({one['id']})")
        number = click.prompt("Which ad account", type=click.IntRange(1, len(known)), err=True)
        return str(known[number - 1]["id"])

    def answer(self, url: str) -> None:
        """Hand in the address that the browser ended on."""
        self._ask(lambda caller: caller.post(f"{API}/login/answer", {"url": url}))
        self._answer({}, lambda out, _: out.print("Access granted: the waiting command goes on.", highlight=False))

    # -- looking

    def show(self, what: str, *, search: str, source: str | None, sink: str | None, account: str) -> None:
        """List groups, accounts or audiences."""
        params = {
            "sources": {"search": search, "source": source},
            "accounts": {"search": search, "sink": sink},
            "audiences": {"search": search, "sink": sink, "account": account},
        }[what]
        path = f"{API}/{'groups' if what == 'sources' else what}"
        self._answer(self._ask(lambda caller: caller.get(path, **params)), getattr(views, what))

    def status(self) -> None:
        """Show every connection."""
        self._answer(self._ask(lambda caller: caller.get(API)), views.status)

    # -- changing

    def connect(self, query: dict[str, Any]) -> None:
        """Connect."""
        self._answer(self._ask(lambda caller: self._job(caller, "/connect", query)), views.connected)

    def disconnect(self, connection: int, *, keep: bool) -> None:
        """End a connection."""
        body = {"connection": connection, "keep": keep}
        self._ask(lambda caller: self._job(caller, "/disconnect", body))
        self._answer(body, views.disconnected)

    def sync(self, query: dict[str, Any]) -> int:
        """Run passes; returns the exit code: 1 when one of them waits for the operator."""
        outcomes = self._ask(lambda caller: self._job(caller, "/sync", query))
        self._answer(outcomes, views.outcomes)
        return int(any(one["state"] in _TROUBLE for one in outcomes))

    def lookalike(self, query: dict[str, Any]) -> None:
        """Create an audience of similar people."""
        self._answer(self._ask(lambda caller: self._job(caller, "/lookalike", query)), views.lookalike)
