"""Import: every row is read, sent once however often the import is killed, and never written anywhere else."""

import asyncio
import csv
import io
import json
import re
import signal
import stat
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gateway import cli
from gateway.commands.control import Busy, Caller
from gateway.commands.importing import Sender
from gateway.errors import CommandFailed, Unavailable
from gateway.hit import Secret
from gateway.http import Control
from gateway.importing import ImportStopped
from gateway.importing.columns import GROUPS, NAMES, field_of, layout, parse_map
from gateway.importing.job import BATCH_ROWS, Answer, Job, Options, opened
from gateway.importing.progress import Bar, Plain, progress
from gateway.importing.records import MAX_RECORD, Record, inspect, records
from gateway.importing.report import Report
from gateway.importing.rows import Unreadable, moment, zone_of
from gateway.importing.totals import Totals
from gateway.interfaces import Unreachable
from gateway.operator import operator_app
from gateway.pipeline import Pipeline
from gateway.plugins.browser_tag.payload import FIELDS, USER_ALIASES
from gateway.testing import Running, running
from tests.harness import conformance
from tests.harness.canary import Canary
from tests.harness.processes import GatewayProcess, Pair, Process, SandboxProcess, plain_config, until

AT = 1_795_000_000
CONFIG = """
[store]
url = "sqlite:///gateway.db"
[pipeline]
max_event_age_s = 0
[sites.shop]
[sources.store]
adapter = "browser_tag"
site = "shop"
secrets = ["s3cret"]
destinations = ["pinterest"]
[sources.tag]
adapter = "browser_tag"
allowed_origins = ["https://shop.example"]
destinations = ["pinterest"]
[sources.orders]
adapter = "shopify"
secrets = ["s3cret"]
options = { shop = "example.myshopify.com" }
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "549000000001"
token = "sandbox-token"
"""
HEADER = "email,event_time,value,currency,order_id"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a configuration and go where it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAG_GATEWAY_CONFIG", raising=False)
    (tmp_path / "gateway.toml").write_text(CONFIG)
    return tmp_path


def write(folder: Path, *lines: str, name: str = "sales.csv", header: str = HEADER) -> Path:
    """Write a file of lines."""
    path = folder / name
    path.write_text("\n".join([*([header] if header else []), *lines]) + "\n")
    return path


def row(number: int, *, order: bool = True) -> str:
    """Return one good row."""
    return f"p{number}@mail.example,{AT - number},{number}.50,EUR,{f'S-{number}' if order else ''}"


def invoke(file: Path, *options: str, code: int = 0, source: str = "store") -> Result:
    """Run the command in this process, without a server; its exit code must be ``code``."""
    result = CliRunner().invoke(cli.cli, ["import", str(file), "--source", source, *options])
    found = 2 if isinstance(result.exception, ImportStopped) else result.exit_code
    assert found == code, (result.output, result.exception)
    return result


def totals(file: Path, *options: str, code: int = 0, source: str = "store") -> dict[str, Any]:
    """Run it and return its summary."""
    found: dict[str, Any] = json.loads(invoke(file, "--json", *options, code=code, source=source).stdout)
    return found


def report_of(path: Path) -> list[dict[str, str]]:
    """Return the lines of a report."""
    return list(csv.DictReader(io.StringIO(path.read_text())))


# -- columns


def test_every_field_of_the_event_has_a_column() -> None:
    """What the tag's JSON knows can be a column: plain, dotted, with underscores, under Pinterest's short names."""
    assert {field for field in FIELDS if field not in GROUPS} <= NAMES.keys()
    assert GROUPS.keys() <= FIELDS
    for name, alias in USER_ALIASES.items():
        assert {field_of(name), field_of(f"user.{name}"), field_of(f"User {name}")} == {f"user.{name}"}
        assert not alias or field_of(alias) == f"user.{name}"
    assert (field_of("ip"), field_of("app_id"), field_of("Event-Time")) == ("client.ip", "app.id", "event_time")
    assert field_of("remarks") is None


def test_columns_are_mapped_by_header_and_option() -> None:
    """Two columns may be one person's e-mail addresses; an empty field leaves a column out; others are named."""
    found = layout(["Sale date", "email", "email2", "value", "Gross", "store"],
                   parse_map(["Sale date=event_time", "email2=user.email", "Gross="]))  # fmt: skip
    assert found.plan == ((0, "event_time"), (1, "user.email"), (2, "user.email"), (3, "value"))
    assert found.unknown == ("store",)


@pytest.mark.parametrize(
    ("header", "columns", "words"),
    [
        (["email", "event_time"], ["email=user.emial"], "did you mean 'user.email'?"),
        (["email", "event_time"], ["emial=email"], "Did you mean 'email'?"),
        (["email", "event_time"], ["email"], "column=field"),
        (["email", "value"], [], "event_time"),
        (["a@mail.example", "x"], [], "header"),
        (["event_time", "value", "total"], ["total=value"], "--map 'total='"),
        (["event_time", "items", "item_ids"], [], "--map 'item_ids='"),
    ],
)
def test_wrong_columns_are_named_with_the_remedy(header: list[str], columns: list[str], words: str) -> None:
    """Nothing is guessed: the message says what to write."""
    with pytest.raises(ImportStopped) as caught:
        layout(header, parse_map(columns))
    assert words in str(caught.value)
    assert "a@mail.example" not in str(caught.value)


# -- records


def read(path: Path, delimiter: str | None = None) -> list[Record]:
    """Return all records of a file."""
    with path.open("rb") as file:
        source = inspect(path, file, delimiter)
        return list(records(file, source, source.start))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    """In the header, under a byte order mark, with either line end; cells may span lines."""
    path = tmp_path / "a.csv"
    rows = [["email", "event_time", "note"], ["a@mail.example", "1", "two\nlines"], ["b", "2", 'say "x"']]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    path.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
    found = read(path)
    assert [record.value for record in found] == rows[1:]
    assert [record.line for record in found] == [2, 4]


def test_a_bad_record_costs_its_own_line(tmp_path: Path) -> None:
    """A stray quote, another width, bytes of another encoding, an endless line: the rows after it are read."""
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'email,event_time\n"open,1\na,2\nb,3,4\n\n,\n\xe9,5\nc,6\n' + b"x" * (2 * MAX_RECORD) + b'\nd,7\n"e"x,8\nf,9'
    )
    found = read(path)
    assert [record.value[0] for record in found if record.problem is None] == ["a", "c", "d", "f"]
    assert [(record.line, record.problem.reason) for record in found if record.problem] == [
        (2, "too_long"), (4, "wrong_columns"), (7, "not_utf8"), (9, "too_long"), (11, "malformed_csv"),
    ]  # fmt: skip
    assert found[-1].after.offset == path.stat().st_size


def test_json_lines_are_read(tmp_path: Path) -> None:
    """Objects only; what is no JSON costs its line."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"email": "a"}\n\n[1]\n{broken\n{"email": "b"}')
    found = read(path)
    assert [record.problem.reason if record.problem else record.value for record in found] == [
        {"email": "a"}, "not_an_object", "malformed_json", {"email": "b"},
    ]  # fmt: skip
    assert [record.line for record in found] == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"  \n", "is empty"),
        ("a.csv", "email,event_time\n".encode("utf-16"), "UTF-8"),
        ("a.csv", b"\xe9mail;event_time\n", "UTF-8"),
        ("a.csv", b'email,"event_time\r\n', "no header"),
        ("a.json", b'[{"email": "a"}]', "one object a line"),
    ],
)
def test_a_file_that_is_none_of_both_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    """The message says how to export it."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImportStopped, match=words):
        read(tmp_path / name)


@given(
    st.lists(st.lists(st.text(st.sampled_from('ab,;"\n\r é'), max_size=6), min_size=2, max_size=2), max_size=8),
    st.sampled_from(["\n", "\r\n"]),
)
def test_reading_goes_on_from_any_place(tmp_path_factory: pytest.TempPathFactory, rows: Any, end: str) -> None:
    """The rest of a file read from any record on is the same as in one go, and no two records have one mark."""
    path = tmp_path_factory.mktemp("places") / "a.csv"
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows([["email", "event_time"], *rows])
    path.write_bytes(text.getvalue().encode())
    whole = read(path)
    marks = [record.mark for record in whole if not record.problem]
    assert len(set(marks)) == len(marks)
    with path.open("rb") as file:
        source = inspect(path, file, None)
        for index, record in enumerate(whole):
            assert list(records(file, source, record.after)) == whole[index + 1 :]


# -- rows


@pytest.mark.parametrize(
    ("text", "zone", "seconds"),
    [
        ("1795000000", None, 1_795_000_000),
        (1_795_000_000, None, 1_795_000_000),
        ("1795000000500", None, 1_795_000_000.5),
        ("2026-11-18T12:00:00Z", None, 1_795_003_200),
        ("2026-11-18T12:00:00+02:00", None, 1_794_996_000),
        ("2026-11-18 12:00", "+02:00", 1_794_996_000),
        ("2026-11-18 12:00", "utc", 1_795_003_200),
        ("2026-07-01", "Europe/Berlin", 1_782_856_800),
        ("2026-11-18T12:00:00Z", "Europe/Berlin", 1_795_003_200),
    ],
)
def test_times(text: str | int, zone: str | None, seconds: float) -> None:
    """Unix seconds or milliseconds, or ISO 8601; a time's own zone is stronger than the option."""
    assert moment(text, zone_of(zone)) == seconds


@pytest.mark.parametrize(
    ("text", "reason"),
    [("2026-11-18 12:00", "no_timezone"), ("18.11.2026", "not_a_time"), ("1", "not_a_time"), (True, "not_a_time")],
)
def test_other_times_are_refused(text: Any, reason: str) -> None:
    """No zone is guessed."""
    with pytest.raises(Unreadable) as caught:
        moment(text, None)
    assert caught.value.problem.reason == reason


def test_an_unknown_zone_is_refused() -> None:
    """The message shows the forms."""
    with pytest.raises(ImportStopped, match="Europe/Berlin"):
        zone_of("Middle/Earth")


# -- through a gateway


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[tuple[Running, Caller]]:
    """Run a gateway with its sandbox, and a caller of its operator's API."""
    config = {
        "pipeline": {"max_event_age_s": 0},
        "sources": {
            "store": {"adapter": "browser_tag", "secrets": ["s3cret"]},
            "tag": {"adapter": "browser_tag", "allowed_origins": ["https://shop.example"]},
            "other": {"adapter": "tealium", "secrets": ["s3cret"]},
        },
    }
    async with running(config, folder) as found:
        control = Control(app=operator_app(found.gateway))
        try:
            yield found, Caller(control)
        finally:
            await control.close()


async def run_job(options: Options, caller: Caller, stop_after: int | None = None) -> Totals:
    """Run one import; with ``stop_after`` it ends right after that many batches were committed, unrecorded."""
    console = Console(file=io.StringIO())
    with opened(options.file) as file:
        job = Job(options, file)
        sender = Sender(caller, options.source, dry_run=options.dry_run, say=lambda _line: None)
        sent = 0

        async def send(rows: list[bytes]) -> Answer:
            nonlocal sent
            answer = await sender(rows)
            sent += 1
            if sent == stop_after:
                raise InterruptedError
            return answer

        earlier = job.earlier
        with Report(options.report_path, earlier.report_bytes if earlier else 0) as report:
            return await job.run(send, report, progress(console, "a", job.fingerprint.size, job.offset))


def test_a_row_arrives_as_its_event(tmp_path: Path) -> None:
    """Identifiers are hashed, goods and money typed, the id derived from the order, and Pinterest's schema holds."""
    header = "email,maid,event_time,value,currency,order_id,item_ids,ip,user_agent,consent.marketing,limited_data"
    maid = "38400000-8cf0-11bd-b23e-10b96e40000d"
    cells = f'Ada@Mail.example,{maid},2026-11-18T12:00:00Z,"1.234,50",eur,A-1,MUG|CUP,93.184.216.34,Till/1,yes,true'
    path = write(tmp_path, cells, header=header)

    async def scenario() -> dict[str, Any]:
        async with gateway(tmp_path) as (found, caller):
            done = await run_job(Options(file=path, source="tag", columns=("maid=mobile_ad_id",)), caller)
            assert (done.rows, done.accepted, done.exit_code) == (1, 1, 0)
            (event,) = await found.delivered(1)
            return event

    event = asyncio.run(scenario())
    assert (event["event_name"], event["action_source"], event["event_time"]) == ("checkout", "offline", 1_795_003_200)
    assert event["event_id"] == "tag-A-1"
    assert {"em", "hashed_maids"} <= event["user_data"].keys()
    assert event["user_data"]["client_ip_address"] == "93.184.216.34", "a public source's row is believed"
    custom = event["custom_data"]
    assert (custom["value"], custom["currency"], custom["content_ids"]) == ("1234.50", "EUR", ["MUG", "CUP"])
    assert custom["opt_out_type"] == "LDP"
    assert conformance.problems_of_events([event]) == []


def test_json_lines_arrive_nested_or_flat(tmp_path: Path) -> None:
    """Objects of the event's format are taken as they are; flat keys are columns; items may be given in full."""
    rows = [
        {"event_name": "lead", "event_id": "j1", "event_time": AT, "user": {"email": ["a@mail.example"]}, "shelf": 1},
        {"event_id": "j2", "event_time": AT, "user.email": "b@mail.example", "Total": 5, "currency": "EUR",
         "items": [{"id": "A", "price": 2.5, "quantity": 2}], "partner_id": None},
    ]  # fmt: skip
    path = write(tmp_path, *map(json.dumps, rows), name="a.jsonl", header="")

    async def scenario() -> list[dict[str, Any]]:
        async with gateway(tmp_path) as (found, caller):
            done = await run_job(Options(file=path, source="store", columns=("Total=value",)), caller)
            assert done.accepted == 2
            return await found.delivered(2)

    one, two = sorted(asyncio.run(scenario()), key=lambda event: event["event_id"])
    assert (one["event_name"], one["event_id"]) == ("lead", "j1")
    assert (two["event_name"], two["custom_data"]["value"]) == ("checkout", "5")
    assert two["custom_data"]["contents"] == [{"id": "A", "item_price": "2.5", "quantity": 2}]


def test_equal_rows_are_two_sales_and_a_second_import_is_none(tmp_path: Path) -> None:
    """Without id and order a row's place tells it from its twin; read again, or with rows added, each stays one."""
    path = write(tmp_path, row(1, order=False), row(1, order=False), row(2))

    async def scenario() -> None:
        async with gateway(tmp_path) as (found, caller):
            first = await run_job(Options(file=path, source="store"), caller)
            assert (first.rows, first.accepted) == (3, 3)
            with path.open("a") as file:
                file.write(row(3, order=False) + "\n")
            again = await run_job(Options(file=path, source="store", restart=True), caller)
            assert (again.rows, again.accepted) == (4, 1)
            await found.delivered(4)
            ids = found.sandbox.record.ids()
            assert (len(ids), set(ids.values())) == (4, {1})
            assert sum(key.startswith("checkout import-") for key in ids) == 3

    asyncio.run(scenario())


def test_a_batch_that_was_committed_but_not_recorded_is_not_sent_twice(tmp_path: Path) -> None:
    """The end comes between commit and record: the next run sends the batch again, and every row arrives once."""
    count = 2 * BATCH_ROWS + 7
    path = write(tmp_path, *(row(number, order=number % 2 == 0) for number in range(count)))
    options = Options(file=path, source="store")

    async def scenario() -> None:
        async with gateway(tmp_path) as (found, caller):
            with pytest.raises(InterruptedError):
                await run_job(options, caller, stop_after=2)
            assert json.loads(options.state_path.read_bytes())["totals"]["rows"] == BATCH_ROWS
            done = await run_job(options, caller)
            assert (done.rows, done.accepted, done.duplicate + done.merged) == (count, count - BATCH_ROWS, BATCH_ROWS)
            await found.delivered(count)
            ids = found.sandbox.record.ids()
            assert (len(ids), set(ids.values())) == (count, {1})

    asyncio.run(scenario())


def test_one_row_that_breaks_the_request_costs_itself_only(tmp_path: Path) -> None:
    """An object nested too deep would refuse its whole request: the others are taken."""
    deep: Any = {}
    for _ in range(40):
        deep = {"a": deep}
    rows = [{"event_time": AT, "email": f"p{number}@mail.example"} for number in range(5)]
    rows[2]["user"] = deep
    path = write(tmp_path, *map(json.dumps, rows), name="a.jsonl", header="")

    async def scenario() -> None:
        async with gateway(tmp_path) as (_, caller):
            options = Options(file=path, source="store")
            done = await run_job(options, caller)
            assert (done.accepted, done.rejected) == (4, {"too_complex": 1})
            assert [(line["row"], line["reason"]) for line in report_of(options.report_path)] == [("3", "too_complex")]

    asyncio.run(scenario())


def test_the_route_says_what_is_wrong(tmp_path: Path) -> None:
    """Unknown sources, other adapters, bodies that are none, batches over 1,000 rows; a viewer may not import."""
    one = {"event": {"event_name": "lead", "user": {"email": "a@mail.example"}}}

    async def scenario() -> None:
        async with gateway(tmp_path) as (found, _):
            app = operator_app(found.gateway, Secret(value="op"), Secret(value="view"))
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://operator") as client:

                async def post(source: str, body: Any, password: str = "op") -> tuple[int, Any]:
                    headers = {"Authorization": f"Bearer {password}"}
                    answer = await client.post(f"/api/import/{source}", json=body, headers=headers)
                    return answer.status_code, answer.json()

                status, answer = await post("store", {"rows": [one, one]})
                assert (status, answer) == (200, {"fates": ["accepted", "accepted"]})
                assert (await post("store", {"rows": [one]}, "view"))[0] == 403
                assert (await post("nobody", {"rows": [one]}))[0] == 404
                status, answer = await post("other", {"rows": [one]})
                assert (status, answer["error"]["code"]) == (400, "wrong_adapter")
                assert 'adapter = "browser_tag"' in answer["error"]["message"]
                assert (await post("store", {"lines": []}))[0] == 400
                assert (await post("store", {"rows": [one] * 1_001}))[0] == 413

    asyncio.run(scenario())


# -- the command


def test_the_summary_counts_every_row(folder: Path) -> None:
    """Accepted, copies, dropped and rejected by reason; the report names row and field, has mode 600 and no value."""
    canary = Canary()
    mail = canary.mail("mail")
    path = write(
        folder, f"{mail},{AT},1,EUR,A", f"{mail},{AT},1,EUR,A", f"{mail},2026-11-18 {canary.word('time')},1,EUR,B",
        f",{AT},1,EUR,C", f"{mail},2026-11-18 12:00,1,EUR,D", f"{mail},,1,EUR,E", f"{mail},{AT}",
        f"{canary.word('broken')},{AT},x,EUR,F",
    )  # fmt: skip
    found = totals(path, code=1)
    report = folder / "sales.csv.errors.csv"
    assert (found["rows"], found["accepted"], found["merged"] + found["duplicate"]) == (8, 1, 1)
    assert found["dropped"] == {"no_identity": 2}
    assert found["rejected"] == {"not_a_time": 1, "no_timezone": 1, "missing_event_time": 1, "wrong_columns": 1}
    assert found["notes"]["value: not_a_number"] == 1
    assert [(line["row"], line["fate"], line["field"], line["reason"]) for line in report_of(report)] == [
        ("4", "rejected", "event_time", "not_a_time"), ("5", "dropped", "", "no_identity"),
        ("6", "rejected", "event_time", "no_timezone"), ("7", "rejected", "event_time", "missing_event_time"),
        ("8", "rejected", "", "wrong_columns"), ("9", "dropped", "", "no_identity"),
    ]  # fmt: skip
    state = folder / "sales.csv.import-state"
    for file in (report, state):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert canary.find(file.name, file.read_bytes()) == []


def test_the_remedy_stands_beside_the_count(folder: Path) -> None:
    """Rows older than Pinterest takes are dropped, and the summary names the key of the configuration."""
    (folder / "gateway.toml").write_text(CONFIG.replace("max_event_age_s = 0", "max_event_age_s = 604800"))
    path = write(folder, "a@mail.example,1500000000,1,EUR,A")
    output = invoke(path, code=1).output
    assert "dropped too_old" in output
    assert "max_event_age_s" in output
    assert "sales.csv.errors.csv" in output


def test_a_rehearsal_commits_nothing(folder: Path) -> None:
    """The same summary and report; no state is left, and the rows are new to the import that follows."""
    path = write(folder, row(1), row(2), f",{AT},1,EUR,C")
    rehearsed = totals(path, "--dry-run", code=1)
    assert (rehearsed["accepted"], rehearsed["dropped"], rehearsed["dry_run"]) == (2, {"no_identity": 1}, True)
    assert not (folder / "sales.csv.import-state").exists()
    assert len(report_of(folder / "sales.csv.dry-run.errors.csv")) == 1
    assert totals(path, code=1)["accepted"] == 2


def test_a_finished_import_is_not_begun_again(folder: Path) -> None:
    """The same command twice says so and sends nothing; --restart reads the file anew and finds copies."""
    path = write(folder, row(1))
    assert totals(path)["accepted"] == 1
    again = invoke(path)
    assert "--restart" in again.stderr
    assert totals(path, "--restart")["accepted"] == 0


def test_what_does_not_fit_the_state_is_refused(folder: Path) -> None:
    """A changed file, other options, another source and a damaged state: each with its remedy."""
    path = write(folder, row(1))
    totals(path)
    for options, source in ((("--timezone", "UTC"), "store"), ((), "tag")):
        assert "--restart" in str(invoke(path, *options, code=2, source=source).exception)
    with path.open("a") as file:
        file.write(row(2) + "\n")
    assert "changed" in str(invoke(path, code=2).exception)
    (folder / "sales.csv.import-state").write_text("{")
    assert "--restart" in str(invoke(path, code=2).exception)


@pytest.mark.parametrize(
    ("options", "source", "words"),
    [
        ((), "orders", 'adapter = "browser_tag"'),
        ((), "nobody", "Known are orders, store, tag"),
        (("--delimiter", "::"), "store", "one character"),
        (("--report", "gateway.toml"), "store", "no report"),
        (("--report", "nowhere/r.csv"), "store", "--report"),
    ],
)
def test_unusable_is_exit_2(folder: Path, options: tuple[str, ...], source: str, words: str) -> None:
    """Source, options and folder: one line with the remedy, before any row is sent."""
    path = write(folder, row(1))
    assert words in str(invoke(path, *options, code=2, source=source).exception)
    assert totals(path)["accepted"] == 1, "the row is still new"


def test_an_interrupted_command_says_how_to_go_on(tmp_path: Path) -> None:
    """Ctrl-C ends it with 130, and a line that says where it stopped."""
    path = big_file(tmp_path, ROWS)
    (tmp_path / "gateway.toml").write_text(CONFIG)
    command = Process("gateway.cli", ["import", str(path), "--source", "store", "--config",
                                      str(tmp_path / "gateway.toml")], tmp_path / "import.log")  # fmt: skip
    command.start()
    until(lambda: recorded(path) > 0, 60, "a batch is done")
    command.send_signal(signal.SIGINT)
    assert command.wait(30) == 130
    assert "the same command goes on" in command.log.read_text()


def test_a_file_that_is_wrong_all_through_ends_at_once(folder: Path) -> None:
    """When all rows of the first batch are rejected for one reason, the rest is not read."""
    path = write(folder, *(f"a@mail.example,2026-11-18 12:00,1,EUR,{number}" for number in range(3 * BATCH_ROWS)))
    assert "no_timezone" in str(invoke(path, code=2).exception)
    assert len(report_of(folder / "sales.csv.errors.csv")) == BATCH_ROWS
    assert totals(path, "--timezone", "Europe/Berlin")["accepted"] == 3 * BATCH_ROWS


def test_unknown_columns_are_said_once(folder: Path) -> None:
    """By name, where they look like names: a heading may be somebody's data."""
    path = write(folder, f"x,a@mail.example,{AT},y", header="shelf,email,event_time,jo@mail.example")
    error = invoke(path).stderr
    assert error.count("shelf") == 1
    assert "jo@mail.example" not in error


def test_two_imports_of_one_file_do_not_meet(folder: Path) -> None:
    """The second is refused while the first reads."""
    path = write(folder, row(1))
    with opened(path):
        assert "being imported" in str(invoke(path, code=2).exception)
    assert totals(path)["accepted"] == 1


def test_reasons_are_documented() -> None:
    """Every reason that a row is rejected for stands in the page."""
    root = Path(__file__).parents[1]
    text = (root / "docs/import.md").read_text()
    code = "".join(path.read_text() for path in (root / "gateway/importing").glob("*.py"))
    reasons = set(re.findall(r'reason="([a-z_0-9]+)"', code))
    reasons |= set(re.findall(r'(?:Unreadable|_first_alone)\(\s*[a-zA-Z_"]+, "([a-z_0-9]+)"', code))
    assert {"not_utf8", "no_timezone", "wrong_columns", "malformed_items"} <= reasons
    assert sorted(reason for reason in reasons if f"`{reason}`" not in text) == []


# -- waiting


class Scripted:
    """A caller with prepared answers; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.bodies: list[Any] = []

    async def post(self, _path: str, body: bytes) -> Any:
        """Give the next answer."""
        self.bodies.append(json.loads(body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def send_rows(*answers: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Answer, Scripted, list[float]]:
    """Send three rows to a scripted gateway; returns answer, caller and the waits."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    caller: Any = Scripted(*answers)
    sender = Sender(caller, "store", dry_run=False, say=lambda _line: None)
    return asyncio.run(sender([b"1", b"2", b"3"])), caller, waits


def test_a_busy_gateway_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After, a restart, and a batch of which only the first rows were taken."""
    answer, caller, waits = send_rows(
        Busy("busy", 7),
        Unreachable("no answer", sent=False),
        {"fates": ["accepted"], "notes": {"email: x": 1}, "retry_after_s": 4},
        {
            "fates": ["accepted", "dropped"],
            "not_taken": [{"row": 1, "fate": "dropped", "reason": "too_old"}],
            "notes": {"email: x": 1},
        },
        monkeypatch=monkeypatch,
    )
    assert waits == [7, 1.0, 4]
    assert [len(body["rows"]) for body in caller.bodies] == [3, 3, 3, 2]
    assert answer.fates == ("accepted", "accepted", "dropped")
    assert [one.row for one in answer.not_taken] == [2]
    assert answer.notes == {"email: x": 2}


def test_waiting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that is asked to wait for longer than the patience, or that refuses, ends the import with a remedy."""
    with pytest.raises(ImportStopped, match="Run the same command again"):
        send_rows(Busy("The gateway is busy.", 1_000), monkeypatch=monkeypatch)
    with pytest.raises(ImportStopped, match="no such source"):
        send_rows(CommandFailed("no such source"), monkeypatch=monkeypatch)


def test_a_full_gateway_answers_503_with_the_time_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The route's answer is what the command waits by: none taken is 503, some taken says how many."""
    handle, calls = Pipeline.handle, 0

    async def busy(self: Pipeline, route: Any, hit: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (1, 3):
            raise Unavailable("busy", "Too many hits.", retry_after_s=3)
        return await handle(self, route, hit)

    monkeypatch.setattr(Pipeline, "handle", busy)
    rows = [{"event": {"event_name": "lead", "event_time": AT, "event_id": f"e{number}", "email": "a"}}
            for number in range(150)]  # fmt: skip

    async def scenario() -> None:
        async with gateway(tmp_path) as (_, caller):
            with pytest.raises(Busy) as caught:
                await caller.post("/api/import/store", {"rows": rows})
            assert caught.value.retry_after_s == 3
            answer = await caller.post("/api/import/store", {"rows": rows})
            assert (len(answer["fates"]), answer["retry_after_s"]) == (100, 3)

    asyncio.run(scenario())


# -- progress


def test_plain_lines_come_every_few_seconds() -> None:
    """Share of the bytes, rows, rate, and the time that is left by the bytes; not for every batch."""
    text = io.StringIO()
    now = [0.0]
    shown = Plain(Console(file=text, width=200), 1_000, 0, lambda: now[0])
    for second in range(1, 11):
        now[0] = float(second)
        shown.update(second * 50, second * 100)
    assert text.getvalue().splitlines() == [
        "25%, 500 rows, 100 rows/s, 15 s left",
        "50%, 1,000 rows, 100 rows/s, 10 s left",
    ]


def test_a_terminal_gets_a_bar() -> None:
    """With the file's name and the rows."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    shown = progress(console, "sales.csv", 1_000, 0)
    assert isinstance(shown, Bar)
    with shown:
        shown.update(1_000, 1_234)
    assert "sales.csv" in text.getvalue()
    assert "1,234 rows" in text.getvalue()


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Ten times the rows need no more memory: nothing is kept of a row that is done."""

    async def accept(rows: Sequence[bytes]) -> Answer:
        return Answer(fates=("accepted",) * len(rows))

    def peak(count: int) -> int:
        path = write(tmp_path, *(row(number, order=False) for number in range(count)), name=f"{count}.csv")
        options = Options(file=path, source="store")
        with opened(path) as file, Report(options.report_path) as report:
            job = Job(options, file)
            shown = Plain(Console(file=io.StringIO()), 1, 0)
            tracemalloc.start()
            try:
                done = asyncio.run(job.run(accept, report, shown))
                found = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert done.accepted == count
        return found

    peak(BATCH_ROWS)  # what is imported and cached once
    few, many = peak(2 * BATCH_ROWS), peak(20 * BATCH_ROWS)
    assert many < few * 1.2, (few, many)


# -- killed


def big_file(folder: Path, count: int) -> Path:
    """Write rows of which half have an order."""
    return write(folder, *(row(number, order=number % 2 == 0) for number in range(count)))


def importer(folder: Path, path: Path, config: Path) -> Process:
    """Return the command as a process."""
    return Process(
        "gateway.cli", ["import", str(path), "--source", "api", "--config", str(config)], folder / "import.log"
    )


def recorded(path: Path) -> int:
    """Rows that the state says are done."""
    try:
        return int(json.loads(path.with_name(f"{path.name}.import-state").read_bytes())["totals"].get("rows", 0))
    except FileNotFoundError:
        return 0


ROWS = 6 * BATCH_ROWS
NO_AGE = "max_event_age_s = 0"


def test_the_command_is_killed_and_resumed(tmp_path: Path) -> None:
    """`kill -9` of the command in the middle: the next run goes on, and the sandbox holds each row exactly once."""
    path = big_file(tmp_path, ROWS)
    with Pair(tmp_path, plain_config(more=NO_AGE, batch_size=1_000)) as pair:
        command = importer(tmp_path, path, pair.gateway.config)
        for rows in (1, 2 * BATCH_ROWS + 1):
            command.start()
            until(lambda rows=rows: recorded(path) >= rows, 60, "a batch is done")  # type: ignore[misc]
            command.kill()
            assert recorded(path) < ROWS, "the kill came too late to show anything"
        command.start()
        assert command.wait(120) == 0, command.log.read_text()
        assert recorded(path) == ROWS
        pair.gateway.drain(60)
        ids = pair.sandbox.ids()
    assert (len(ids), set(ids.values())) == (ROWS, {1})
    assert "Going on after" in command.log.read_text()


def test_the_server_is_killed_and_started_again(tmp_path: Path) -> None:
    """`kill -9` of the server in the middle: the command waits for it, and the sandbox holds each row exactly once."""
    path = big_file(tmp_path, ROWS)
    sandbox = SandboxProcess(tmp_path)  # delivery begins later: a call that a kill cuts off may arrive twice
    config = plain_config(more=NO_AGE, batch_size=1_000).replace("{sandbox}", f"{sandbox.url}/v5")
    server = GatewayProcess(tmp_path, config)
    command = importer(tmp_path, path, server.config)
    try:
        server.start()
        command.start()
        until(lambda: recorded(path) > 0, 60, "a batch is done")
        server.kill()
        assert recorded(path) < ROWS, "the kill came too late to show anything"
        sandbox.start()
        server.start()
        assert command.wait(120) == 0, command.log.read_text()
        server.drain(60)
        ids = sandbox.ids()
    finally:
        command.kill()
        server.kill()
        sandbox.kill()
    assert (len(ids), set(ids.values())) == (ROWS, {1})
    assert json.loads(path.with_name("sales.csv.import-state").read_bytes())["is_finished"] is True
