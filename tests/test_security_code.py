"""What the code and its papers must never hold, and that every control has its test."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = sorted([*(ROOT / "gateway").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")])
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("adapters/*/README.md")])
LOCKS = ("requirements.lock", "requirements-dev.lock")

# -- proofs are compared in constant time

_PROOFS = re.compile(r"(?:^|_)(?:digest|signature|token|secret|hmac|password|mac|credential|api_key)s?$")
#: Comparisons of such names that decide nothing for somebody outside: where, what, and why.
JUSTIFIED = {
    ("gateway/memory.py", "digest in wanted"): "keyed hashes of what is remembered: they open nothing",
    ("gateway/oauth.py", "tokens.access.value == refused"): "both sides are ours: which of our tokens a vendor refused",
}
#: The store compares its own row digests and lease tokens, the stand-ins of vendors those of tests.
_OURS = ("gateway/outbox/", "gateway/sandbox/", "gateway/testing/", "gateway/audiences/")


@cache
def nodes(code: str) -> tuple[ast.AST, ...]:
    """Return the parts of a piece of code."""
    return tuple(ast.walk(ast.parse(code)))


def comparisons(code: str) -> Iterator[str]:
    """Yield each comparison by ==, != or ``in`` with something named like a proof."""
    for node in nodes(code):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        for op, one, other in zip(node.ops, sides, sides[1:], strict=False):
            if not isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn):
                continue
            if isinstance(one, ast.Constant) or isinstance(other, ast.Constant):
                continue
            if _is_proof(one) or _is_proof(other):
                yield ast.unparse(node)


def _is_proof(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute) and node.attr == "value":
        return _is_proof(node.value) or "access" in ast.unparse(node.value)
    if isinstance(node, ast.Call):
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        return name in ("digest", "hexdigest", "b64encode", "b64decode") or _PROOFS.search(name) is not None
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    is_class = name[:1].isupper() and not name.isupper()
    return not is_class and _PROOFS.search(name.lower()) is not None


@pytest.mark.parametrize(
    "planted",
    [
        "given == secret.value", "signature != expected", "token in tokens", "hmac.digest(k, b, 'sha256') == given",
        "base64.b64decode(a) == b", "self._password == given", "header == expected_signature", "a == hit.api_key",
    ],
)  # fmt: skip
def test_the_search_finds_a_planted_comparison(planted: str) -> None:
    """The control: each of these would leak by its time."""
    assert list(comparisons(planted)) == [planted]


def test_no_proof_is_compared_by_equals() -> None:
    """Signatures, secrets and tokens are compared by ``hmac.compare_digest`` only; what is justified still exists."""
    found = {
        (str(path.relative_to(ROOT)), text)
        for path in CODE
        if not str(path.relative_to(ROOT)).startswith(_OURS)
        for text in comparisons(path.read_text(encoding="utf-8"))
    }
    assert found == set(JUSTIFIED)


# -- nothing is brought to life from data

_FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "xmlrpc", "telnetlib"}
_FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "execvp", "spawnl", "mktemp"}


def dangers(code: str) -> Iterator[str]:
    """Yield what would run or revive data: pickles, YAML, eval, shells, temporary names that can be guessed."""
    for node in nodes(code):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in _FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in _FORBIDDEN_MODULES:
            yield node.module or ""
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in ("os", "tempfile", "builtins"):
                name = node.func.attr
            if name in _FORBIDDEN_CALLS:
                yield name
            yield from ("shell" for word in node.keywords if word.arg == "shell")


@pytest.mark.parametrize(
    "planted",
    ["import pickle", "from yaml import load", "eval(x)", "exec(body)", "os.system(x)", "run(x, shell=True)"],
)
def test_the_search_finds_a_planted_danger(planted: str) -> None:
    """The control: each of these would let data run."""
    assert list(dangers(planted))


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_data_never_runs(path: Path) -> None:
    """Boundaries take JSON, TOML and CSV; nothing unpickles, evaluates, or starts a shell."""
    assert list(dangers(path.read_text(encoding="utf-8"))) == []


def test_the_linter_looks_for_weaknesses() -> None:
    """Ruff's security rules are on for the product; one alone is off, with its reason, and few lines are excused."""
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert [rule for rule in lint["ignore"] if rule.startswith("S") and rule[1:].isdigit()] == ["S608"]
    for pattern, rules in lint["per-file-ignores"].items():
        if pattern.startswith(("gateway", "adapters")):
            assert not [rule for rule in rules if rule.startswith("S")], pattern
    excused = [
        line.strip()
        for path in CODE
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"noqa:[^#]*\bS(?!10[56])\d{3}", line) and " - " not in line.partition("noqa:")[2]
    ]
    assert excused == [], "say why a line is excused"


# -- dependencies


def requirements(lock: str) -> dict[str, str]:
    """Return each pinned requirement with the hashes that belong to it."""
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    return {line.split("==")[0].strip(): line for line in lines}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_has_its_hashes(lock: str) -> None:
    """Exact versions with SHA-256 hashes, from no address and no other index than the installer's own."""
    found = requirements(lock)
    assert len(found) > 15
    for name, line in found.items():
        assert re.match(r"^[a-z0-9._-]+==[^\s;]+", line), name
        assert re.findall(r"--hash=(\w+):[0-9a-f]{64}\b", line), name
        assert set(re.findall(r"--hash=(\w+):", line)) == {"sha256"}, name
        assert "://" not in line, name
        assert " @ " not in line, name
        assert not re.search(r"--(?:index-url|extra-index-url|find-links|trusted-host)|(?:^| )-[if] ", line), name


def test_direct_dependencies_are_few() -> None:
    """Sixteen or fewer, all of them locked; installing by hash is what make, image and tests do."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = {re.split(r"[<>=!;\[ ]", line)[0].lower() for line in project["dependencies"]}
    assert len(direct) <= 16
    assert direct <= requirements("requirements.lock").keys()
    for name in ("Makefile", "Dockerfile"):
        installs = re.findall(r"install [^\n&]*-r [^\n&]*", (ROOT / name).read_text(encoding="utf-8"))
        assert installs, name
        assert all("--require-hashes" in line for line in installs), name


# -- papers


def test_nothing_is_called_anonymous() -> None:
    """A hash of an e-mail address is personal data: no page and no text of the code says otherwise."""
    files = [*PAGES, *CODE, *(ROOT / "gateway").rglob("*.js"), *(ROOT / "adapters").rglob("*.js")]
    wrong = []
    for path in files:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "anonym" in line.lower()]
        said = re.findall(r"[^.\n]*\banonym\w*", "\n".join(lines), re.IGNORECASE)
        denied = re.compile(r"\b(?:not|never|nothing|no)\b[^.]*\banonym", re.IGNORECASE)
        wrong += [f"{path.relative_to(ROOT)}: {words.strip()}" for words in said if not denied.search(words)]
    assert wrong == []
    assert re.search(r"\bnot anonymous\b", (ROOT / "SECURITY.md").read_text(encoding="utf-8")), "the control"


def test_every_control_has_its_test() -> None:
    """Each row of the page names a file that exists and test functions in it; each section of the page has rows."""
    text = (ROOT / "docs/security-checks.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert [section.split("\n")[0] for section in sections] == [
        "Inbound edge", "Webhooks", "Privacy", "Outbound and secrets", "Operator", "Supply chain",
    ]  # fmt: skip
    for section in sections:
        rows = re.findall(r"^\| (?!control|---)(.+?) \| (.+) \|$", section, re.MULTILINE)
        assert len(rows) >= 3, section.split("\n")[0]
        for control, cell in rows:
            named = re.findall(r"`(?:([\w.]+\.py)::)?(\w+)`", cell)
            assert named, control
            file = ""
            for path, function in named:
                file = path or file
                code = (ROOT / "tests" / file).read_text(encoding="utf-8")
                assert re.search(rf"^def {function}\(", code, re.MULTILINE), f"{control}: {file}::{function}"


def test_webhooks_that_are_lost_can_be_read_again() -> None:
    """Shopify guarantees no delivery: the page says so, and how recent orders are read again."""
    text = (ROOT / "docs/shopify.md").read_text(encoding="utf-8")
    assert "guarantees none" in text
    assert "tag-gateway shopify reconcile --source" in text


def test_the_threat_model_is_one_page() -> None:
    """It names what it must, and stays short enough to be read."""
    text = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Assets", "Who attacks", "Entry points and boundaries", "Threats", "What is not protected"]
    assert len(text.splitlines()) <= 90
    security = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for link in (
        "docs/threat-model.md",
        "docs/security-checks.md",
        "docs/operations.md#what-is-kept-where-for-how-long",
    ):
        assert link in security
    assert "72 hours" in security
    assert "7 days" in security
