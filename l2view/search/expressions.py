"""SQL expressions over the fields of granules that were found: their order, and their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from datafusion import DataFrame
from numpy.typing import NDArray

from l2view.errors import L2ViewError
from l2view.search.context import geo_context
from l2view.search.errors import explain
from l2view.search.planning import require_plain, sort_keys

NUMBER = "__l2view_number"
"""A column with the position of each granule."""

type Known = Callable[[Sequence[str]], pa.Table]
"""Returns some fields of the granules."""


def ranks(
    order_by: str | Sequence[str], count: int, fields: Sequence[str], known: Known
) -> NDArray[np.int64]:
    """Return the place of each granule in an order; ties keep the order that there is.

    Parameters
    ----------
    order_by
        SQL sort expressions, such as ``"cloud_cover DESC"``.
    count
        How many granules there are.
    fields
        The fields' names.
    known
        Returns some of them, one row a granule.

    Raises
    ------
    QueryError, FieldError
        Where they aren't valid.
    """

    def run(frame: DataFrame) -> pa.Table:
        keys = [*sort_keys(frame, order_by), frame.parse_sql_expr(NUMBER).sort()]
        return frame.sort(*keys).select(NUMBER).to_arrow_table()

    order = _run(str(order_by), count, fields, known, run).column(0).to_numpy()
    ranks_by_granule = np.empty(len(order), dtype=np.int64)
    ranks_by_granule[order] = np.arange(len(order))
    return ranks_by_granule


def values(expression: str, count: int, fields: Sequence[str], known: Known) -> pa.ChunkedArray:
    """Return the value of an SQL expression for each granule.

    The parameters and errors are those of `ranks`.
    """

    def run(frame: DataFrame) -> pa.Table:
        value = frame.parse_sql_expr(expression)
        require_plain(value.canonical_name(), "group_by=")
        number = frame.parse_sql_expr(NUMBER)
        frame_of_values = frame.select(number, value.alias("value"))
        return frame_of_values.sort(frame_of_values.parse_sql_expr(NUMBER).sort()).to_arrow_table()

    return _run(expression, count, fields, known, run).column("value")


def _run(
    text: str,
    count: int,
    fields: Sequence[str],
    known: Known,
    run: Callable[[DataFrame], pa.Table],
) -> pa.Table:
    """Run a query over the fields that `text` names."""
    folded = text.casefold()
    table = known([name for name in fields if name.casefold() in folded])
    numbers = pa.array(np.arange(count, dtype=np.int64))
    columns = dict(zip(table.schema.names, table.columns, strict=True))
    table = pa.table({**columns, NUMBER: numbers})
    try:
        return run(geo_context().from_arrow(table))
    except L2ViewError:
        raise
    except Exception as error:  # DataFusion raises bare Exceptions
        raise explain(str(error), list(fields), ["meta"]) from error
