"""Imports run one way, and modules stay small: the rules of the design, held by reading the code."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import gateway

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "gateway").glob("*.py"))
PLUGINS = sorted([*(ROOT / "gateway" / "plugins").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")])
ALL = sorted([*(ROOT / "gateway").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")])
#: Lower may never import higher.
LEVELS = (
    {"errors", "event", "hit", "outcome"},
    {"interfaces"},
    {"hookspecs"},
    {"pluginhost"},
    {"pipeline", "sender", "isolation", "seal", "identity"},
    {"ingress", "runtime", "operator"},
    {"server", "commands", "cli"},
)


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(path: Path) -> list[tuple[str, int]]:
    """Return every imported dotted name (``gateway.event.Event`` for a from-import) with its line."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{identify(path)}:{node.lineno}: write the import in full"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


@pytest.mark.parametrize("path", CORE, ids=identify)
def test_the_core_knows_no_plugin(path: Path) -> None:
    """Everything that knows a vendor is a plugin: no module of the core imports one."""
    bad = [(name, line) for name, line in imports(path) if name.startswith(("gateway.plugins", "adapters"))]
    assert bad == []


@pytest.mark.parametrize("path", PLUGINS, ids=identify)
def test_plugins_use_the_public_api_only(path: Path) -> None:
    """A built-in plugin needs nothing that a stranger's could not import."""
    module = module_of(path)
    own = ".".join(module.split(".")[: 3 if module.startswith("gateway.") else 2])
    for name, line in imports(path):
        if not name.startswith(("gateway", "adapters")) or name.startswith(own):
            continue
        package, _, imported = name.rpartition(".")
        assert package == "gateway", f"line {line}: {name}"
        assert imported in gateway.__all__, f"line {line}: {imported} is not public"


@pytest.mark.parametrize("path", CORE, ids=identify)
def test_imports_run_one_way(path: Path) -> None:
    """event, hit, outcome, errors ← interfaces ← hookspecs ← pluginhost ← pipeline, sender ← apps ← cli."""
    level = next((number for number, names in enumerate(LEVELS) if path.stem in names), None)
    if level is None:
        return
    higher = {name for names in LEVELS[level + 1 :] for name in names}
    runtime = ast.parse(path.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(runtime)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(runtime):
        if id(node) in guarded or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom) and node.module == "gateway":
            names = [f"gateway.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "gateway" and len(parts) > 1:
                assert parts[1] not in higher, f"line {node.lineno}: {name}"


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("pluggy", {"gateway.pluginhost", "gateway.hookspecs"}),
        ("httpx", {"gateway.http"}),
        ("sqlite3", None),
        ("prometheus_client", {"gateway.tally", "gateway.operator.api", "gateway.operator.status"}),
    ],
)
def test_a_library_has_its_place(library: str, allowed: set[str] | None) -> None:
    """What may be replaced one day is imported in one place; SQLite belongs to the outbox and to audiences."""
    users = {module_of(path) for path in ALL for name, _ in imports(path) if name.split(".")[0] == library}
    assert users, f"nobody imports {library}: this test is out of date"
    if allowed is None:
        assert all(module.startswith(("gateway.outbox", "gateway.audiences")) for module in users)
    else:
        assert users <= allowed


@pytest.mark.parametrize("path", ALL, ids=identify)
def test_modules_and_functions_are_small(path: Path) -> None:
    """No module over 400 lines, no function over 60, and no module that is named for nothing."""
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}


def test_the_median_module_is_short() -> None:
    """Most modules can be read at once."""
    lengths = sorted(len(path.read_text().splitlines()) for path in ALL)
    assert lengths[len(lengths) // 2] <= 150


def test_the_adapters_are_a_namespace_folder() -> None:
    """A stranger's package may live beside ours: adapters/ itself has no __init__.py."""
    assert not (ROOT / "adapters" / "__init__.py").exists()
    assert (ROOT / "adapters" / "shopify" / "__init__.py").exists()
