"""PromQL over the window: compile an expression once, evaluate it on any snapshot. Semantics of Prometheus 3.

Three differences, all by design (DESIGN section 5): a series holds its value for its own `stale_after` instead of five
minutes; step series (counters made of events) hold it for ever and are differenced exactly; native histograms, subqueries
and the @ modifier are refused. Nothing here does I/O of its own, reads a clock or logs.
"""

from sixfbd.promql.errors import PromQLError, QueryError, QueryStopped, Stop
from sixfbd.promql.evaluate import MAX_STEPS, cost, evaluate, loaded
from sixfbd.promql.nodes import Selector
from sixfbd.promql.parse import Query, compile  # noqa: A004 - the name of DESIGN section 6
from sixfbd.promql.patterns import anchored, matches
from sixfbd.promql.value import Pick, Reads, Value, series_text

__all__ = [
    "MAX_STEPS",
    "Pick",
    "PromQLError",
    "Query",
    "QueryError",
    "QueryStopped",
    "Reads",
    "Selector",
    "Stop",
    "Value",
    "anchored",
    "compile",
    "cost",
    "evaluate",
    "loaded",
    "matches",
    "series_text",
]
