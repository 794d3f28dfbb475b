"""The questions of ``tag-gateway init``, and the file they end in."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway import config as configuration
from gateway.cli import cli
from gateway.commands.init import PLATFORMS
from gateway.errors import ConfigError
from gateway.runtime import Parts, assemble

SHOP, PAGES, ACCOUNT = "example.myshopify.com", "https://shop.example.com", "549755885175"


def run(path: Path, *answers: str) -> Result:
    """Answer the questions by lines of standard input."""
    return CliRunner().invoke(cli, ["init", str(path)], input="".join(f"{answer}\n" for answer in answers))


def assembled(path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    """Load the file and put everything together that it names, with every variable set."""
    for name in ("PINTEREST_TOKEN", "GATEWAY_PASSWORD", "SHOPIFY_SECRET", "GTM_SECRET", "TEALIUM_SECRET"):
        monkeypatch.setenv(name, f"{name.lower()}-value")
    config = configuration.load(path)
    assert config.operator.password is not None
    configuration.secret(config.operator.password, config, "[operator] password")
    return assemble(config, None)


@pytest.mark.parametrize(
    ("platforms", "answers", "sources"),
    [
        ("", (SHOP, PAGES, "", ACCOUNT, ""), {"shop", "shop_pixel"}),
        ("gtm", ("", ACCOUNT, ""), {"gtm"}),
        ("tealium", ("", ACCOUNT, ""), {"tealium"}),
        ("site", (PAGES, "", ACCOUNT, ""), {"tag"}),
        (", ".join(PLATFORMS), (SHOP, PAGES, "", ACCOUNT, ""), {"shop", "shop_pixel", "gtm", "tealium", "tag"}),
    ],
)
def test_init_writes_a_working_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    platforms: str,
    answers: tuple[str, ...],
    sources: set[str],
) -> None:
    """Whatever was chosen, the file loads, every plugin takes its options, and there is nothing to warn about."""
    path = tmp_path / "gateway.toml"
    result = run(path, platforms, *answers)
    assert result.exit_code == 0, result.output
    parts = assembled(path, monkeypatch)
    assert parts.routes.keys() == sources
    assert parts.warnings == ()
    assert {source.site for source in parts.config.sources.values()} == {"shop"}


def test_init_says_what_is_left_to_do(tmp_path: Path) -> None:
    """Every variable, every address for the vendors' screens and the next command are printed."""
    path = tmp_path / "gateway.toml"
    output = run(path, "shopify gtm tealium site", SHOP, PAGES, "", ACCOUNT, "https://in.example.com").output
    text = path.read_text(encoding="utf-8")
    variables = {line.split('env = "')[1].split('"')[0] for line in text.splitlines() if 'env = "' in line}
    assert variables == {"PINTEREST_TOKEN", "GATEWAY_PASSWORD", "SHOPIFY_SECRET", "GTM_SECRET", "TEALIUM_SECRET"}
    assert all(f"  {name}\n" in output for name in variables)
    for source in ("shop", "shop_pixel", "gtm", "tealium", "tag"):
        assert f"https://in.example.com/in/{source}\n" in output
    assert f"tag-gateway check --online --config {path}" in output


def test_init_writes_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that is set already stays in the environment."""
    monkeypatch.setenv("PINTEREST_TOKEN", "pina_invented")
    path = tmp_path / "gateway.toml"
    result = run(path, "gtm", "", ACCOUNT, "")
    assert "pina_invented" not in path.read_text(encoding="utf-8") + result.output


@pytest.mark.parametrize(
    ("wrong", "right", "rest", "complaint"),
    [
        ((), "magento", ("gtm", "", ACCOUNT, ""), "magento"),
        (("shopify",), "shop.example.com", (SHOP, PAGES, "", ACCOUNT, ""), "myshopify.com domain"),
        (("site",), "shop.example.com", (PAGES, "", ACCOUNT, ""), "scheme and host"),
        (("gtm",), "Atlantis", ("US", ACCOUNT, ""), "country code"),
        (("gtm", ""), "1" * 19, (ACCOUNT, ""), "1 to 18 digits"),
        (("gtm", ""), "12a", (ACCOUNT, ""), "1 to 18 digits"),
        (("gtm", "", ACCOUNT), "http://in.example.com", ("",), "https"),
    ],
)
def test_init_asks_again_after_a_wrong_answer(
    tmp_path: Path, wrong: tuple[str, ...], right: str, rest: tuple[str, ...], complaint: str
) -> None:
    """A wrong answer is explained and asked for again, and the file is written in the end."""
    path = tmp_path / "gateway.toml"
    result = run(path, *wrong, right, *rest)
    assert result.exit_code == 0, result.output
    assert complaint in result.output
    assert path.exists()


def test_init_understands_names_and_spellings(tmp_path: Path) -> None:
    """A country's name, a shop with its scheme and a page's whole address are read as what they mean."""
    path = tmp_path / "gateway.toml"
    result = run(path, "Shopify", f"https://{SHOP}/", f"{PAGES}/cart?x=1, {PAGES}", "Germany", ACCOUNT, "")
    assert result.exit_code == 0, result.output
    text = path.read_text(encoding="utf-8")
    assert 'default_country = "DE"' in text
    assert f'options = {{ shop = "{SHOP}" }}' in text
    assert f'allowed_origins = ["{PAGES}", "null"]' in text


def test_init_never_overwrites(tmp_path: Path) -> None:
    """A file that exists stays as it is, before anything is asked."""
    path = tmp_path / "gateway.toml"
    path.write_text("# mine\n", encoding="utf-8")
    result = run(path)
    assert isinstance(result.exception, ConfigError)
    assert "exists already" in str(result.exception)
    assert path.read_text(encoding="utf-8") == "# mine\n"


def test_init_names_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A path that cannot be written is a clear error."""
    result = run(tmp_path / "nowhere" / "gateway.toml", "gtm", "", ACCOUNT, "")
    assert isinstance(result.exception, ConfigError)
    assert "cannot be written" in str(result.exception)


def test_init_without_answers_writes_nothing(tmp_path: Path) -> None:
    """When the input ends early nothing is written."""
    path = tmp_path / "gateway.toml"
    result = run(path, "gtm")
    assert result.exit_code != 0
    assert not path.exists()
