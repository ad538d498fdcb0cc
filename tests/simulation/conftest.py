"""The bench for the judge, shared with the simulator (`tests/judge_kit.py`)."""

import pytest

pytest.register_assert_rewrite("tests.judge_kit")

from tests import judge_kit  # noqa: E402 - its asserts are rewritten first


@pytest.fixture(scope="session")
def kit():
    return judge_kit
