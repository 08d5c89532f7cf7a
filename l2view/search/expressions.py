"""SQL expressions over the fields of granules that were found: their order, and their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
from datafusion import DataFrame
from numpy.typing import NDArray

from l2view.errors import L2ViewError
from l2view.search.context import column, geo_context
from l2view.search.errors import explain
from l2view.search.planning import require_plain, sort_keys

NUMBER = "__l2view_number"  # a column with the position of each granule

type Known = Callable[[Sequence[str]], pa.Table]


def ranks(
    order_by: str | Sequence[str], count: int, fields: Sequence[str], known: Known
) -> NDArray[np.int64]:
    """Return the place of each of `count` granules in an order; ties keep the order that there is.

    `order_by` are SQL sort expressions, such as ``"cloud_cover DESC"``; `known` returns some of all
    `fields`, one row a granule.
    """
    with _frame(str(order_by), count, fields, known) as frame:
        keys = [*sort_keys(frame, order_by), column(NUMBER).sort()]
        order = frame.sort(*keys).select(NUMBER).to_arrow_table().column(0).to_numpy()
    ranks_by_granule = np.empty(len(order), dtype=np.int64)
    ranks_by_granule[order] = np.arange(len(order))
    return ranks_by_granule


def values(expression: str, count: int, fields: Sequence[str], known: Known) -> pa.ChunkedArray:
    """Return the value of an SQL expression for each granule (see `ranks`)."""
    with _frame(expression, count, fields, known) as frame:
        value = frame.parse_sql_expr(expression)
        require_plain(value.canonical_name(), "group_by=")
        frame = frame.select(column(NUMBER), value.alias("value")).sort(column(NUMBER).sort())
        return frame.to_arrow_table().column("value")


@contextmanager
def _frame(text: str, count: int, fields: Sequence[str], known: Known) -> Iterator[DataFrame]:
    """Make a frame of the fields that `text` names, whose errors are l2view's."""
    folded = text.casefold()
    table = known([name for name in fields if name.casefold() in folded])
    columns = dict(zip(table.schema.names, table.columns, strict=True))
    table = pa.table({**columns, NUMBER: pa.array(np.arange(count, dtype=np.int64))})
    try:
        yield geo_context().from_arrow(table)
    except L2ViewError:
        raise
    except Exception as error:  # DataFusion raises bare Exceptions
        raise explain(str(error), list(fields), ["meta"]) from error
