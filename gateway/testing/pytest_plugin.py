"""
The fixtures of the kit; pytest finds them through the entry point ``tag_gateway`` of the group ``pytest11``.

Beyond the package ``gateway`` itself nothing is imported before a fixture is used.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gateway.testing.app import Running


@pytest.fixture
def adapter_contract() -> Callable[..., None]:
    """Return :func:`gateway.testing.contract.check_adapter`: ``adapter_contract(Acme(), Path("examples"))``."""
    from gateway.testing.contract import check_adapter

    return check_adapter


@pytest.fixture
def running_gateway(tmp_path: Path) -> "Callable[[Mapping[str, Any]], AbstractAsyncContextManager[Running]]":
    """Start gateways in ``tmp_path`` by :func:`gateway.testing.app.running`."""
    from gateway.testing.app import running

    def start(config: Mapping[str, Any], **arguments: Any) -> "AbstractAsyncContextManager[Running]":
        return running(config, tmp_path, **arguments)

    return start
