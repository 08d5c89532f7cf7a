"""The rows that answer a query.

``where`` is parsed as one SQL expression on its own before it goes anywhere near a query.
Everything else becomes DataFusion expressions over literals: no value is ever put into
SQL text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from datafusion import DataFrame, Expr, col
from numpy.typing import NDArray

from l2view.errors import (
    FieldError,
    L2ViewWarning,
    QueryError,
    UnreadableGeometryError,
    warn,
)
from l2view.index.candidates import EVERY, Candidates
from l2view.meta.schema import ROW
from l2view.search.engine import Session
from l2view.search.logical_plan import RANDOM
from l2view.search.names import TABLE, column
from l2view.search.parameters import parameters
from l2view.search.place import box, geometry_field, touches
from l2view.search.pruning import candidates, with_values
from l2view.search.query import Query
from l2view.search.table import MetaDataset
from l2view.search.time import meets
from l2view.text import join_names

LITERAL = (
    r"(?:(?:Large)?Utf8(?:View)?|Boolean|U?Int\d+|Float\d+|Decimal\d+|Date\d+|Time\w+|Interval\w+|"
    r"Duration\w+|(?:Large)?Binary)\((?:[^()\"]*|\"[^\"]*\")\)|NULL"
)
"""What DataFusion calls a value that no field makes."""

CARRIED = 2**28
"""The most bytes of fields that are kept from finding rows; of more they are read again."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    rows
        The row numbers in its order, int64, of shape (n,).
    meta
        The table, with what of its fields is known from finding them.
    """

    rows: NDArray[np.int64]
    meta: MetaDataset

    def take(self, names: Sequence[str]) -> pa.Table:
        """Return columns of the rows."""
        return self.meta.take(self.rows, list(names))


def find(session: Session, query: Query, names: Sequence[str] = ()) -> SearchResult:
    """Find the rows that answer a query.

    Parameters
    ----------
    session
        The table.
    query
        The query.
    names
        Fields that are wanted of what is found: those that the search reads anyway are kept.

    Raises
    ------
    QueryError, FieldError
        Where the search can't be asked of this table.
    """
    try:
        return _find(session, query, names)
    except UnreadableGeometryError as error:
        warn(f"{error}. Such rows are not found by place", L2ViewWarning)
        found = _find(Session(session.meta.with_checked_geometries()), query)
        return SearchResult(found.rows, session.meta)


def _find(session: Session, query: Query, names: Sequence[str] = ()) -> SearchResult:
    whole = session.meta
    whole.refresh()
    meta = whole.among(EVERY)
    session = Session(meta, session.tables)
    first = query.limit is not None and query.order_by is None
    most = meta.rows if query.limit is None else query.limit
    read = [] if first else sorted({*names} & _named(query, meta))
    frame = _planned(session, query, None if first else query.limit, read)
    with session.explained():
        found = candidates(session.context, frame, TABLE, meta)
    if query.ids is not None:
        wanted = _wanted(meta.schema, query.ids)
        found = found.both(with_values(meta, "id", wanted))
    left, rows, batches = found.uncertain(), np.empty(0, dtype=np.int64), list[pa.RecordBatch]()
    # Of the first rows that there are, no more are looked at than it takes.
    for span in meta.spans() if first else [meta.span]:
        meta.restrict(left, span)
        batches = []
        if not meta.is_ruled_out():
            with session.explained():
                batches = frame.collect()
        certain = found.certain[slice(*np.searchsorted(found.certain, (span.start, span.stop)))]
        new = np.concatenate([certain, *(batch.column(0).to_numpy() for batch in batches)])
        rows = np.concatenate([rows, new if query.order_by else np.sort(new)])
        if len(rows) >= most:
            break
    # Where an index told of some for certain, they weren't read.
    if read and batches and not len(found.certain):
        found = _with_columns(found, batches, meta.rows)
    return SearchResult(rows[:most], whole.among(found))


def _named(query: Query, meta: MetaDataset) -> set[str]:
    """Return the fields that a condition names, which its rows are read for."""
    words = set(re.findall(r"\w+", query.where or ""))
    if query.bbox is not None or query.intersects is not None:
        words.add(geometry_field(meta.schema, query.geometry_field))
    return words & meta.fields.keys()


def _with_columns(found: Candidates, batches: Sequence[pa.RecordBatch], tail: int) -> Candidates:
    """Return the rows that were found, with what was read of them."""
    rows = np.concatenate([batch.column(0).to_numpy() for batch in batches])
    if sum(batch.nbytes for batch in batches) > CARRIED:
        return found
    order = pa.array(np.argsort(rows))
    known = {
        name: pa.concat_arrays([batch.column(name) for batch in batches]).take(order)
        for name in batches[0].schema.names[1:]
    }
    return Candidates(np.sort(rows), tail, known, found.near, found.said)


def _planned(session: Session, query: Query, limit: int | None, names: Sequence[str]) -> DataFrame:
    """Plan a query for the numbers of its first `limit` rows, and fields of these rows."""
    schema, table = session.meta.schema, session.context.table(TABLE)
    frame = table
    if query.where is not None:
        frame = _where(session, table, query.where, query.params)
    found = conditions(session, query)
    with session.explained():
        for condition in found:
            frame = frame.filter(condition)
        if query.ids is not None:
            frame = _only(session, frame, schema, query.ids)
        order = sort_keys(table, query.order_by)
        frame = frame.sort(*order, col(ROW).sort()) if order else frame
        if limit is not None:
            frame = frame.limit(limit)
        return frame.select(ROW, *map(column, names))


def conditions(session: Session, query: Query) -> list[Expr]:
    """Return the conditions for place and time as DataFusion expressions."""
    schema = session.meta.schema
    found = []
    shapes = []
    if query.bbox is not None:
        shapes.append(box(query.bbox))
    if query.intersects is not None:
        shapes.append(query.intersects)
    for shape in shapes:
        field = session.meta.fields[geometry_field(schema, query.geometry_field)]
        found.extend(touches(session.context, field, shape))
    if query.datetime is not None:
        found.extend(meets(schema, query.datetime, query.time_field))
    return found


def _where(
    session: Session, table: DataFrame, where: str, params: Mapping[str, Any] | None
) -> DataFrame:
    """Return the rows of `table` that pass the expression `where`.

    Parsing it alone is what refuses a second statement, a clause or a table: only a text that
    is one expression from its first to its last word reaches the query.
    """
    try:
        with session.explained():
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


def require_plain(expression: str, name: str) -> None:
    """Raise where an expression's canonical name has in it what no condition may have."""
    plain = re.sub(r'Utf8\("[^"]*"\)', "", expression)
    if found := RANDOM.search(plain):
        raise QueryError(f"{found.group(1)}() answers otherwise each time; a view can't")
    if "<subquery>" in plain:
        raise QueryError(f"{name} has a subquery, which is for sql()")


def _only(session: Session, frame: DataFrame, schema: pa.Schema, ids: Iterable[Any]) -> DataFrame:
    """Return the rows of `frame` whose ``id`` is one of `ids`."""
    wanted = _wanted(schema, ids)
    other = session.context.from_arrow(pa.table({"_wanted": wanted.unique()}))
    return frame.join(other, left_on="id", right_on="_wanted", how="semi")


def _wanted(schema: pa.Schema, ids: Iterable[Any]) -> pa.Array:
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


def sort_keys(table: DataFrame, order_by: str | Sequence[str] | None) -> list[Any]:
    """Return the sort expressions for `order_by`."""
    if order_by is None:
        return []
    texts = _split(order_by) if isinstance(order_by, str) else list(order_by)
    return [_sort_key(table, text) for text in texts]


def _split(text: str) -> list[str]:
    """Split at the commas that stand outside quotes and brackets."""
    parts, depth, quote, start = [], 0, "", 0
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
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]


def _sort_key(table: DataFrame, text: str) -> Any:
    pattern = r"(?is)^\s*(.+?)(?:\s+(asc|desc))?(?:\s+nulls\s+(first|last))?\s*$"
    match = re.match(pattern, text)
    if match is None:
        raise QueryError(f'order_by={text!r} is not a sort expression such as "date DESC"')
    expression, direction, nulls = match.groups()
    descending = (direction or "").lower() == "desc"
    # NULL last unless it is asked for: whoever sorts by cloud cover wants granules with one.
    first = (nulls or "last").lower() == "first"
    key = table.parse_sql_expr(expression)
    require_plain(key.canonical_name(), "order_by=")
    if re.fullmatch(LITERAL, key.canonical_name()):
        raise QueryError(
            f"order_by={text!r} is the same for all; a field's name goes without quotes, or in "
            "double quotes"
        )
    return key.sort(ascending=not descending, nulls_first=first)
