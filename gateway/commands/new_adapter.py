"""``tag-gateway new-adapter``."""

import re
from pathlib import Path

import click

import gateway
from gateway.errors import ConfigError

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
#: Where the template is: in a wheel, and in a checkout.
_PLACES = ("testing/adapter_template", "../examples/adapter-template")
_CACHES = frozenset({"__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache"})


def new_adapter(name: str, folder: Path) -> Path:
    """
    Write the package ``tag-gateway-NAME`` into ``folder``, say what comes next, and return where it is.

    Raises:
        ConfigError: The name is none, the package is there already, or it cannot be written.
    """
    if not _NAME.match(name):
        raise ConfigError(
            f"'{name}' cannot be an adapter's name: use lower-case letters, digits and '_', with a letter first."
        )
    target = folder / distribution(name)
    if target.exists():
        raise ConfigError(f"{target}: exists already. Choose another name or --folder, or remove it.")
    try:
        for source, relative in _files(_template()):
            written = target / rendered(relative, name)
            written.parent.mkdir(parents=True, exist_ok=True)
            written.write_text(rendered(source.read_text(encoding="utf-8"), name), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written ({error.strerror}). Choose another --folder.") from error
    click.echo(_next_steps(name, target))
    return target


def rendered(text: str, name: str) -> str:
    """
    Fill in the name: the template is a working package of the platform "yourplatform".

    ``YOURPLATFORM`` stands in names of variables, ``Yourplatform`` in names of classes.
    """
    for placeholder, value in (
        ("tag-gateway-yourplatform", distribution(name)),
        ("YOURPLATFORM", name.upper()),
        ("Yourplatform", "".join(part.capitalize() for part in name.split("_"))),
        ("yourplatform", name),
    ):
        text = text.replace(placeholder, value)
    return text


def distribution(name: str) -> str:
    """Return what the package is called where it is published."""
    return f"tag-gateway-{name.replace('_', '-')}"


def _template() -> Path:
    home = Path(gateway.__file__).parent
    for place in _PLACES:
        template = (home / place).resolve()
        if (template / "pyproject.toml").is_file():
            return template
    raise ConfigError(f"{home}: the adapter template is missing. Reinstall tag-gateway.")


def _files(template: Path) -> list[tuple[Path, str]]:
    """Return the template's files and their paths in it."""
    found = []
    for path in sorted(template.rglob("*")):
        relative = path.relative_to(template)
        if path.is_file() and _CACHES.isdisjoint(relative.parts):
            found.append((path, relative.as_posix()))
    return found


def _next_steps(name: str, target: Path) -> str:
    return f"""{target} is written. Next:

    cd {target}
    pip install -e . pytest
    pytest                      # the contract checks, on examples/*.json

Then give it a source in gateway.toml, and look at it with 'tag-gateway check':

    [sources.{name}]
    adapter = "{name}"
    secrets = [{{ env = "{name.upper()}_SECRET" }}]
    destinations = ["pinterest"]
"""
