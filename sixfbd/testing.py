"""pytest fixtures for authors of plugins; `pytest_plugins = ["sixfbd.testing"]` in conftest.py brings them.

pytest itself is the extra `sixfbd[testing]`. A test is a plain function, and hours pass in a moment::

    from my_package import queue

    def test_a_long_queue_is_told(engine):
        engine.start(queue, checks={"orders": {"plugin": "queue", "url": "http://shop/queue"}}, http=answer)
        engine.advance("10m")
        assert engine.value("shop_queue_length") == 120
        assert engine.firing() == ["QueueLong"]
        assert "120 orders wait" in engine.told[0].text
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sixfbd.config import ConfigError
from sixfbd.schedule import NotRunError
from sixfbd.simulated.answers import Answer
from sixfbd.simulated.engine import STARTED_AT, Engine, EngineError

__all__ = ["STARTED_AT", "Answer", "ConfigError", "Engine", "EngineError", "NotRunError", "engine"]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A daemon in memory and in simulated time; see `sixfbd.testing.Engine`. It is stopped when the test ends."""
    made = Engine(tmp_path / "sixfbd")
    (tmp_path / "sixfbd").mkdir()
    yield made
    made.stop()
