"""What pytest must know before it loads a test: the harness asserts too, and its messages should say as much."""

import pytest

pytest.register_assert_rewrite("tests.harness")
