"""What a search asks, and the rows that it finds.

``where`` is parsed as one SQL expression on its own before it goes anywhere near a query.
Everything else becomes DataFusion expressions over literals: no value is ever put into
SQL text.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, SupportsIndex

import numpy as np
import pyarrow as pa
import shapely
from datafusion import DataFrame, Expr, col
from numpy.typing import NDArray

from l2view.errors import FieldError, L2ViewWarning, QueryError, UnreadableGeometryError, warn
from l2view.index.candidates import EVERY, Candidates
from l2view.meta.schema import ROW
from l2view.search.engine import Session
from l2view.search.logical_plan import RANDOM
from l2view.search.names import TABLE, column
from l2view.search.parameters import parameters, to_json
from l2view.search.place import box, geometry, geometry_field, touches
from l2view.search.pruning import candidates, with_values
from l2view.search.table import MetaDataset
from l2view.search.time import interval, meets
from l2view.stores.open import Source
from l2view.text import join_names

LITERAL = (
    r"(?:(?:Large)?Utf8(?:View)?|Boolean|U?Int\d+|Float\d+|Decimal\d+|Date\d+|Time\w+|Interval\w+|"
    r"Duration\w+|(?:Large)?Binary)\((?:[^()\"]*|\"[^\"]*\")\)|NULL"
)
"""What DataFusion calls a value that no field makes."""

MOMENTARY = re.compile(r"\b(now|today|current_(?:date|time|timestamp))\b", re.IGNORECASE)
"""Functions that answer otherwise from moment to moment."""


CARRIED = 2**28
"""The most bytes of fields that are kept from finding rows; of more they are read again."""


@dataclass(frozen=True)
class Search:
    """What a search asks of the rows; its parts are combined with AND.

    Attributes
    ----------
    where
        One SQL boolean expression in DataFusion's dialect.
    params
        Values for its ``$name`` placeholders.
    bbox
        West, south, east, north in degrees (EPSG:4326); west > east crosses the
        antimeridian.
    intersects
        A geometry in EPSG:4326.
    datetime
        A STAC interval, closed; None for an open end.
    ids
        Values of the field ``id``.
    order_by
        SQL sort expressions (``"cloud_cover DESC"``), ties in the order of the rows.
    limit
        The most rows.
    geometry_field, time_field
        The fields that `bbox`, `intersects` and `datetime` look at, where they haven't one of
        the usual names.
    """

    where: str | None = None
    params: Mapping[str, Any] | None = None
    bbox: Sequence[float] | None = None
    intersects: Any = None
    datetime: Any = None
    ids: Iterable[Any] | None = None
    order_by: str | Sequence[str] | None = None
    limit: int | None = None
    geometry_field: str | None = None
    time_field: str | None = None

    def asked(self) -> dict[str, Any]:
        """Return what was asked as JSON, so that it can be asked again."""
        said: dict[str, Any] = {}
        if self.where is not None:
            said["where"] = self.where
        if self.params:
            said["params"] = {name: to_json(value) for name, value in self.params.items()}
        if self.bbox is not None:
            said["bbox"] = [float(value) for value in self.bbox]
        if self.intersects is not None:
            said["intersects"] = shapely.to_wkt(geometry(self.intersects), rounding_precision=-1)
        if self.datetime is not None:
            said["datetime"] = str(interval(self.datetime))
        if self.ids is not None:
            said["ids"] = [to_json(value) for value in self.ids]
        if self.limit is not None:
            said["limit"] = operator.index(self.limit)
        for name in ("order_by", "geometry_field", "time_field"):
            if getattr(self, name) is not None:
                said[name] = getattr(self, name)
        return said

    @property
    def only_ids(self) -> bool:
        """Whether nothing but the ids says which granules are wanted."""
        others = (self.where, self.bbox, self.intersects, self.datetime, self.limit)
        return self.ids is not None and all(other is None for other in others)

    @property
    def momentary(self) -> bool:
        """Whether the answer depends on when it was asked."""
        order = [self.order_by] if isinstance(self.order_by, str) else self.order_by or ()
        return any(MOMENTARY.search(text) for text in (self.where or "", *order))


def described(
    search: Search,
    source: Source,
    fields: Sequence[str],
    count: int,
    variables: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return what the root of a view says of it as JSON.

    Parameters
    ----------
    search
        What was searched for.
    source
        The store.
    fields
        The selected fields.
    count
        How many granules were found.
    variables
        The globs of arrays, None for all.
    """
    said: dict[str, Any] = {
        "version": 1,
        "collection": source.label,
        "snapshot": source.snapshot,
        "query": search.asked(),
        "fields": list(fields),
        "count": count,
    }
    if variables is not None:
        said["variables"] = list(variables)
    if search.momentary:
        said["opened"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return said


@dataclass(frozen=True)
class Found:
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


def find(session: Session, search: Search, names: Sequence[str] = ()) -> Found:
    """Return the rows that `search` finds.

    Parameters
    ----------
    session
        The table.
    search
        What is asked.
    names
        Fields that are wanted of what is found: those that the search reads anyway are kept.

    Raises
    ------
    QueryError, FieldError
        Where the search can't be asked of this table.
    """
    _check(search)
    try:
        return _find(session, search, names)
    except UnreadableGeometryError as error:
        warn(f"{error}. Such rows are not found by place", L2ViewWarning)
        found = _find(Session(session.meta.with_checked_geometries()), search)
        return Found(found.rows, session.meta)


def _find(session: Session, search: Search, names: Sequence[str] = ()) -> Found:
    whole = session.meta
    whole.refresh()
    meta = whole.among(EVERY)
    session = Session(meta, session.tables)
    first = search.limit is not None and search.order_by is None
    most = meta.rows if search.limit is None else operator.index(search.limit)
    read = [] if first else sorted({*names} & _named(search, meta))
    frame = _planned(session, replace(search, limit=None) if first else search, read)
    with session.explained():
        found = candidates(session.context, frame, TABLE, meta)
    if search.ids is not None:
        wanted = _wanted(meta.schema, search.ids)
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
        rows = np.concatenate([rows, new if search.order_by else np.sort(new)])
        if len(rows) >= most:
            break
    # Where an index told of some for certain, they weren't read.
    if read and batches and not len(found.certain):
        found = _with_columns(found, batches, meta.rows)
    return Found(rows[:most], whole.among(found))


def _named(search: Search, meta: MetaDataset) -> set[str]:
    """Return the fields that a condition names, which its rows are read for."""
    words = set(re.findall(r"\w+", search.where or ""))
    if search.bbox is not None or search.intersects is not None:
        words.add(geometry_field(meta.schema, search.geometry_field))
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


def _planned(session: Session, search: Search, names: Sequence[str] = ()) -> DataFrame:
    """Return the query for the row numbers that `search` finds, and fields of these rows."""
    schema, table = session.meta.schema, session.context.table(TABLE)
    frame = table
    if search.where is not None:
        frame = _where(session, table, search.where, search.params)
    elif search.params:
        raise QueryError("params= are values for the placeholders of where=, which is missing")
    found = conditions(session, search)
    with session.explained():
        for condition in found:
            frame = frame.filter(condition)
        if search.ids is not None:
            frame = _only(session, frame, schema, search.ids)
        order = sort_keys(table, search.order_by)
        frame = frame.sort(*order, col(ROW).sort()) if order else frame
        if search.limit is not None:
            frame = frame.limit(operator.index(search.limit))
        return frame.select(ROW, *map(column, names))


def conditions(session: Session, search: Search) -> list[Expr]:
    """Return the conditions for place and time as DataFusion expressions."""
    schema = session.meta.schema
    found = []
    shapes = []
    if search.bbox is not None:
        shapes.append(box(search.bbox))
    if search.intersects is not None:
        shapes.append(geometry(search.intersects))
    for shape in shapes:
        field = session.meta.fields[geometry_field(schema, search.geometry_field)]
        found.extend(touches(session.context, field, shape))
    if search.datetime is not None:
        found.extend(meets(schema, interval(search.datetime), search.time_field))
    return found


def _check(search: Search) -> None:
    if search.limit is not None and (
        isinstance(search.limit, bool)
        or not isinstance(search.limit, SupportsIndex)
        or operator.index(search.limit) < 0
    ):
        raise QueryError(f"limit={search.limit!r} is not a number of granules")
    if search.where is not None and not isinstance(search.where, str):
        raise QueryError(f"where= is one SQL expression as text, not {type(search.where).__name__}")
    if search.ids is not None and (
        isinstance(search.ids, str) or not isinstance(search.ids, Iterable)
    ):
        raise QueryError("ids= is a list of ids; for one, pass a list of one")


def _where(
    session: Session, table: DataFrame, where: str, params: Mapping[str, Any] | None
) -> DataFrame:
    """Return the rows of `table` that pass the expression `where`.

    Parsing it alone is what refuses a second statement, a clause or a table: only a text that
    is one expression from its first to its last word reaches the query.
    """
    if not where.strip():
        raise QueryError("where= is empty; leave it out to find every granule")
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
