"""The versions that the gateway does not run below, asserted at start: environments are put together by hand, too."""

import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from gateway.errors import ConfigError

#: Below these: Starlette CVE-2026-54283 (limits of forms ignored), h11 CVE-2025-43859 (chunks read leniently),
#: h2 CVE-2026-71554 (two hosts).
FLOORS = {"starlette": (1, 3, 1), "h11": (0, 16, 0), "h2": (4, 4, 1)}
#: :mod:`gateway.engines` replaces parts of exactly this one.
EXACT = {"hypercorn": "0.18.0"}


def assert_floors(installed: Callable[[str], str] = version) -> None:
    """
    Check the installed versions.

    Args:
        installed: Returns the version of a distribution.

    Raises:
        ConfigError: One is missing, too old or, where it must be exact, another; the message names the remedy.
    """
    for name in (*EXACT, *FLOORS):
        try:
            found = installed(name)
        except PackageNotFoundError:
            found = "none"
        if name in EXACT:
            wanted, good = f"=={EXACT[name]}", found == EXACT[name]
        else:
            wanted, good = f">={'.'.join(map(str, FLOORS[name]))}", _numbers(found) >= FLOORS[name]
        if not good:
            raise ConfigError(
                f"{name} {found} is installed, the gateway needs {name}{wanted}: "
                f'pip install "{name}{wanted}", or install from requirements.lock.'
            )


def _numbers(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with."""
    leading = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, leading[0].split("."))) if leading else ()
