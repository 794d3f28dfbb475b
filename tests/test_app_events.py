"""App events: what an app's backend tells of app, device and person reaches Pinterest in its own fields, or not."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.importing.job import Answer, Job, Options, opened
from gateway.importing.report import Report
from gateway.sandbox import PinterestSandbox
from gateway.testing import running
from gateway.testing.doubles import NOW
from tests.harness import conformance

BEARER = {"Authorization": "Bearer s3cret"}
CONFIG = {
    "sources": {
        "app": {"adapter": "browser_tag", "secrets": ["s3cret"]},
        "page": {"adapter": "browser_tag", "allowed_origins": ["https://shop.example"]},
    }
}
AD_ID = "38400000-8CF0-11BD-B23E-10B96E40000D"
APP = {
    "id": "1234567890", "name": "Shop", "version": "7.2.1", "package_name": "com.example.shop", "store": "App Store",
    "install_time": int(NOW) - 86_400, "user_agent": "Shop/7.2.1", "window_height": 2556, "window_width": 1179,
}  # fmt: skip
DEVICE = {
    "brand": "Apple", "model": "iPhone 16", "type": "phone", "carrier": "Tel", "form_factor": "phone",
    "os_family": "iOS", "os_name": "iOS", "os_version": "19.1", "os_release_name": "Cove", "kernel_version": "24.0",
    "locale": "en-US", "languages": ["en-US", "fr"], "network_type": "5G", "wifi": False, "timezone": "Europe/Berlin",
    "timezone_abbr": "CET", "battery_level": 80, "cpu_cores": 6, "screen_density": 460, "screen_height": 2556,
    "screen_width": 1179, "storage_size": 256, "storage_free_space": 100, "external_storage_size": 0,
    "external_storage_free_space": 0,
}  # fmt: skip
#: The API has these beside ``device_info``, flat.
FLAT = {
    "device_brand": "Apple", "device_model": "iPhone 16", "device_type": "phone", "device_carrier": "Tel",
    "os_version": "19.1", "wifi": False, "app_id": "1234567890", "app_name": "Shop", "app_version": "7.2.1",
}  # fmt: skip


def event(**changes: Any) -> dict[str, Any]:
    """Return an app event."""
    return {
        "event_name": "checkout", "event_id": "a1", "event_time": int(NOW) - 60, "action_source": "app_ios",
        "user": {"mobile_ad_id": AD_ID}, "app": APP, "device": DEVICE, **changes,
    }  # fmt: skip


def sent(folder: Path, body: Any, source: str = "app", **headers: str) -> tuple[dict[str, Any], list[str]]:
    """Send an event through a gateway; returns what Pinterest got, and the notes of the answer."""

    async def scenario() -> tuple[dict[str, Any], list[str]]:
        sandbox = PinterestSandbox(clock=lambda: NOW)
        async with running(CONFIG, folder, clock=lambda: NOW, sandbox=sandbox) as gateway:
            given = {**(BEARER if source == "app" else {}), **headers}
            status, answer = await gateway.post(source, body, given, peer="93.184.216.34")
            assert (status, answer["accepted"]) == (200, 1), answer
            (found,) = await gateway.delivered(1)
            return found, answer["events"][0].get("notes", [])

    found, notes = asyncio.run(scenario())
    assert conformance.problems_of_events([found]) == []
    return found, notes


def properties(name: str) -> set[str]:
    """Return the properties of an object of the published description."""
    if not conformance.is_known():
        pytest.skip("Pinterest's description is not in this checkout")
    document = yaml.load(conformance.SPEC.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return set(document["components"]["schemas"][name]["properties"])


def test_everything_of_app_and_device_is_carried(tmp_path: Path) -> None:
    """Each field in its place: objects and flat fields, words of closed sets translated, languages as two letters."""
    found, notes = sent(tmp_path, event())
    assert notes == []
    assert FLAT.items() <= found.items()
    assert found["app_info"] == {
        f"app_{key}" if key in ("id", "name", "version", "package_name", "store") else key: value
        for key, value in APP.items()
    }
    plain = {key: value for key, value in DEVICE.items() if key != "wifi"}
    assert found["device_info"] == {
        **plain, "form_factor": "cellphone", "os_family": "ios", "network_type": "cellular_5g",
        "languages": ["en", "fr"],
    }  # fmt: skip


def test_no_field_of_the_description_is_missing(tmp_path: Path) -> None:
    """What Pinterest describes of app and device can all be told."""
    wanted = properties("ConversionEventAppInfo"), properties("ConversionEventDeviceInfo")
    found, _ = sent(tmp_path, event())
    assert (set(found["app_info"]), set(found["device_info"])) == wanted


def test_the_names_of_the_api_are_taken_too(tmp_path: Path) -> None:
    """``app_id`` and ``device_brand`` inside of the objects mean the same."""
    app = {f"app_{key}": APP[key] for key in ("id", "name", "version", "package_name", "store")}
    device = {f"device_{key}": DEVICE[key] for key in ("brand", "model", "type", "carrier")}
    found, notes = sent(tmp_path, event(app=app, device={**device, "wifi": "no", "os_version": "19.1"}))
    assert notes == []
    assert FLAT.items() <= found.items()
    assert found["app_info"] == app


@pytest.mark.parametrize("source", ["app_ios", "app_android"])
@pytest.mark.parametrize("opt_out", [True, False])
def test_limit_ad_tracking_is_handed_on(tmp_path: Path, source: str, *, opt_out: bool) -> None:
    """As the app says it."""
    found, _ = sent(tmp_path, event(action_source=source, opt_out=opt_out))
    assert (found["action_source"], found["opt_out"]) == (source, opt_out)


def test_silence_about_ad_tracking_stays_silence(tmp_path: Path) -> None:
    """No default is made up: true would opt everybody out, false would claim a choice."""
    assert "opt_out" not in sent(tmp_path, event())[0]


def test_mobile_ids_are_hashed_in_one_form(tmp_path: Path) -> None:
    """Lower case before hashing, in plain or hashed already; the zeros of a device that limits tracking are no id."""
    plain, _ = sent(tmp_path / "plain", event())
    (digest,) = plain["user_data"]["hashed_maids"]
    again, _ = sent(tmp_path / "hashed", event(user={"hashed_maids": [digest]}))
    assert again["user_data"]["hashed_maids"] == [digest]
    zeros = "00000000-0000-0000-0000-000000000000"
    found, notes = sent(
        tmp_path / "zeros", event(user={"mobile_ad_id": zeros, "email": "a@mail.example"}, opt_out=True)
    )
    assert "hashed_maids" not in found["user_data"]
    assert any(note.startswith("mobile_ad_id: ") for note in notes)


@pytest.mark.parametrize(
    ("device", "kept", "note"),
    [
        ({"battery_level": 180}, None, None),
        ({"battery_level": 0.8}, None, "device.battery_level: not_a_number"),
        ({"os_family": "plan9", "os_name": "9"}, {"os_name": "9"}, None),
        ({"timezone_abbr": "longer", "cpu_cores": "8"}, {"cpu_cores": 8}, None),
        ({"model": "x" * 101, "brand": "Acme"}, {"brand": "Acme"}, None),
        ({"screen_width": -1, "shade": "blue"}, None, "device.screen_width: not_a_number"),
    ],
)
def test_what_pinterest_would_refuse_is_left_out(
    tmp_path: Path, device: dict[str, Any], kept: dict[str, Any] | None, note: str | None
) -> None:
    """One value out of its bounds would refuse a whole call: it costs itself."""
    found, notes = sent(tmp_path, event(device=device))
    assert found.get("device_info") == kept
    assert note is None or note in notes


def test_an_app_that_sends_by_itself_is_completed_from_its_connection(tmp_path: Path) -> None:
    """A public source needs no identifiers: address and user agent are those of the connection, and tell the device."""
    agent = "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/130.0"
    found, _ = sent(
        tmp_path, event(action_source="app_android", user={}, device={"carrier": "Tel"}), "page",
        **{"User-Agent": agent, "Origin": "https://shop.example"},
    )  # fmt: skip
    assert found["user_data"] == {"client_ip_address": "93.184.216.34", "client_user_agent": agent}
    assert (found["device_info"]["os_family"], found["device_carrier"]) == ("android", "Tel")


def test_an_event_of_the_web_has_no_app(tmp_path: Path) -> None:
    """App and ``device_info`` belong to app events; flat device fields to all."""
    found, _ = sent(tmp_path, event(action_source="web"))
    assert not {"app_id", "app_info", "device_info"} & found.keys()
    assert found["device_brand"] == "Apple"


def test_columns_of_a_file_are_app_and_device_too(tmp_path: Path) -> None:
    """An import names them with a dot or an underscore."""
    path = tmp_path / "app.csv"
    path.write_text(
        "event_name,event_time,action_source,mobile_ad_id,app.id,app_version,device_brand,device.wifi,opt_out\n"
        f"app_install,{int(NOW)},app_android,{AD_ID},77,2.0,Acme,true,1\n"
    )
    rows: list[bytes] = []

    async def send(batch: list[bytes]) -> Answer:
        rows.extend(batch)
        return Answer(fates=("accepted",))

    class Silent:
        def update(self, offset: int, rows: int) -> None: ...
        def say(self, line: str) -> None: ...

    options = Options(file=path, source="app")
    shown: Any = Silent()
    with opened(path) as file, Report(options.report_path) as report:
        asyncio.run(Job(options, file).run(send, report, shown))
    body = yaml.safe_load(rows[0])["event"]
    found, notes = sent(tmp_path, body)
    assert notes == []
    assert (found["event_name"], found["action_source"], found["opt_out"]) == ("app_install", "app_android", True)
    assert (found["app_info"], found["device_brand"], found["wifi"]) == (
        {"app_id": "77", "app_version": "2.0"}, "Acme", True,
    )  # fmt: skip
