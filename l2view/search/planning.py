"""A query as DataFusion plans it.

``where`` is parsed as one SQL expression on its own before it goes anywhere near a query.
Everything else becomes DataFusion expressions over literals: no value is ever put into
SQL text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datafusion import DataFrame, Expr, col
from numpy.typing import NDArray

from l2view.errors import FieldError, L2ViewError, QueryError
from l2view.geolocation.globe import rectangle
from l2view.meta.schema import ROW
from l2view.search.context import RANDOM, TABLE, column, geo_context
from l2view.search.engine import Session
from l2view.search.errors import explain
from l2view.search.parameters import parameters
from l2view.search.place import geometry_field, place_conditions
from l2view.search.query import Query
from l2view.search.time import time_conditions
from l2view.text import join_names

NUMBER = "__l2view_number"  # a column with the position of each granule

type Known = Callable[[Sequence[str]], pa.Table]

LITERAL = (
    r"(?:(?:Large)?Utf8(?:View)?|Boolean|U?Int\d+|Float\d+|Decimal\d+|Date\d+|Time\w+|Interval\w+|"
    r"Duration\w+|(?:Large)?Binary)\((?:[^()\"]*|\"[^\"]*\")\)|NULL"
)
"""What DataFusion calls a value that no field makes."""


def plan_query(session: Session, query: Query, names: Sequence[str]) -> DataFrame:
    """Plan a query, its limit left out, for the numbers of its rows and fields of these.

    A `QueryError` or `FieldError` is raised where the query can't be asked of this table.
    """
    table = session.context.table(TABLE)
    frame = table
    if query.where is not None:
        frame = _plan_where(session, table, query.where, query.params)
    conditions = _conditions(session, query)
    with session.translate_errors():
        for condition in conditions:
            frame = frame.filter(condition)
        if query.ids is not None:
            ids = id_values(session.table.schema, query.ids).unique()
            ids_frame = session.context.from_arrow(pa.table({"_wanted": ids}))
            frame = frame.join(ids_frame, left_on="id", right_on="_wanted", how="semi")
        order = sort_keys(table, query.order_by)
        frame = frame.sort(*order, col(ROW).sort()) if order else frame
        return frame.select(ROW, *map(column, names))


def _conditions(session: Session, query: Query) -> list[Expr]:
    """Return the conditions for place and time."""
    schema = session.table.schema
    bbox: Any = query.bbox
    shapes = [] if bbox is None else [rectangle(*bbox, both_sides=True)]
    shapes += [] if query.intersects is None else [query.intersects]
    conditions = []
    for shape in shapes:
        field = session.table.fields[geometry_field(schema, query.geometry_field)]
        conditions.extend(place_conditions(session.context, field, shape))
    if query.datetime is not None:
        conditions.extend(time_conditions(schema, query.datetime, query.time_field))
    return conditions


def _plan_where(
    session: Session, table: DataFrame, where: str, params: Mapping[str, Any] | None
) -> DataFrame:
    """Plan the rows of `table` that pass the expression `where`.

    It is parsed alone first, which refuses a second statement, a clause or a table: only a text
    that is one expression from its first to its last word reaches the query.
    """
    try:
        with session.translate_errors():
            expression = table.parse_sql_expr(where).canonical_name()
    except QueryError as error:
        if "no table" in str(error):
            raise QueryError(
                "where= is one expression over the rows of meta, without tables of its own; "
                "a query with a subquery is for sql()"
            ) from error
        raise
    require_plain(expression, "where=")
    placeholders = set(re.findall(r"\$(\w+)", expression))
    unused = sorted(set(parameters(params)) - placeholders)
    if unused:
        raise QueryError(
            f"where= has no placeholder for {join_names('$' + name for name in unused)}"
        )
    # The line break ends a comment that the expression may end with.
    return session.plan(f"SELECT * FROM {TABLE} WHERE (\n{where}\n)", params)  # noqa: S608


def id_values(schema: pa.Schema, ids: Iterable[Any]) -> pa.Array:
    """Return ids as values of the field ``id``."""
    if "id" not in schema.names:
        raise FieldError(
            f'ids= looks at the field "id", and there is none; fields: {join_names(schema.names)}'
        )
    kind = schema.field("id").type
    try:
        return pa.array(list(ids), kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise QueryError(f"ids= must be of the type of the field id, {kind}: {error}") from error


def require_plain(expression: str, name: str) -> None:
    """Raise where an expression's canonical name has in it what no condition may have."""
    plain = re.sub(r'Utf8\("[^"]*"\)', "", expression)
    if match := RANDOM.search(plain):
        raise QueryError(f"{match.group(1)}() answers otherwise each time; a view can't")
    if "<subquery>" in plain:
        raise QueryError(f"{name} has a subquery, which is for sql()")


def sort_keys(table: DataFrame, order_by: str | Sequence[str] | None) -> list[Any]:
    """Return the sort expressions for `order_by`."""
    if order_by is None:
        return []
    texts = _split_sort_keys(order_by) if isinstance(order_by, str) else list(order_by)
    return [_sort_key(table, text) for text in texts]


def _split_sort_keys(text: str) -> list[str]:
    """Split at the commas that stand outside quotes and brackets."""
    keys, depth, quote, start = [], 0, "", 0
    for position, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        elif char == "," and depth == 0:
            keys.append(text[start:position])
            start = position + 1
    return [*keys, text[start:]]


def _sort_key(table: DataFrame, text: str) -> Any:
    pattern = r"(?is)^\s*(.+?)(?:\s+(asc|desc))?(?:\s+nulls\s+(first|last))?\s*$"
    match = re.match(pattern, text)
    if match is None:
        raise QueryError(f'order_by={text!r} is not a sort expression such as "date DESC"')
    expression, direction, nulls = match.groups()
    descending = (direction or "").lower() == "desc"
    # NULL last unless it is asked for: whoever sorts by cloud cover wants granules with one.
    nulls_first = (nulls or "last").lower() == "first"
    key = table.parse_sql_expr(expression)
    require_plain(key.canonical_name(), "order_by=")
    if re.fullmatch(LITERAL, key.canonical_name()):
        raise QueryError(
            f"order_by={text!r} is the same for all; a field's name goes without quotes, or in "
            "double quotes"
        )
    return key.sort(ascending=not descending, nulls_first=nulls_first)


def ranks(
    order_by: str | Sequence[str], count: int, fields: Sequence[str], known: Known
) -> NDArray[np.int64]:
    """Return the place of each of `count` granules in an order; ties keep the order that there is.

    `order_by` are SQL sort expressions, such as ``"cloud_cover DESC"``; `known` returns some of all
    `fields`, one row a granule.
    """
    with _frame(str(order_by), count, fields, known) as frame:
        keys = [*sort_keys(frame, order_by), column(NUMBER).sort()]
        order = frame.sort(*keys).select(NUMBER).to_arrow_table().column(0)
    return np.asarray(pc.inverse_permutation(order))


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
