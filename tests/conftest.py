"""What pytest must know before it loads a test: the harness asserts too; and which files take longest."""

import pytest

pytest.register_assert_rewrite("tests.harness")

#: Files with few tests that take long. They come first, so that workers do not wait for one of them at the end.
_LONG = (
    "test_kill", "test_soak", "test_failpoints", "test_joining_load", "test_import", "test_outage", "test_disk",
    "test_operator_browser", "test_damage", "test_fuzz_process", "test_fuzz", "test_engines", "test_deploy",
    "test_conservation", "test_overload_load", "test_quarantine", "test_plugins_at_fault", "test_replay_faults",
    "test_vendor_faults", "test_rotation", "test_migration", "test_sync", "test_demo", "test_new_adapter",
    "test_browser", "test_health", "test_rollups", "test_audiences_sync", "test_audiences_cli",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; the order within a file stays."""
    ranks = {name: rank for rank, name in enumerate(_LONG)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))
