"""What a search asks: a value that is checked once, and goes to JSON and back."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Self, SupportsIndex

import pyarrow as pa
import shapely

from l2view.errors import QueryError
from l2view.search.parameters import as_texts, from_json, parameters, to_json
from l2view.search.place import corners, geometry
from l2view.search.time import interval
from l2view.stores.open import Source
from l2view.text import unknown_name

NOW = re.compile(r"\b(now|today|current_(?:date|time|timestamp))\b", re.IGNORECASE)
"""SQL functions whose value depends on when they are called."""


@dataclass(frozen=True, eq=False)
class Query:
    """The conditions of a search, which all hold for its rows, and the order of the rows.

    ``Query.from_json(view.attrs["l2view"]["query"])`` is the query that a view answers.

    Parameters
    ----------
    where, params, bbox, intersects, datetime, ids, order_by, limit
        As for `Collection.search`, whose first argument a query may be.
    geometry_field, time_field
        The fields for `bbox`, `intersects` and `datetime`, where they have none of the usual
        names.

    Raises
    ------
    QueryError
        Where a value is of the wrong type or out of range.
    """

    where: str | None = None
    params: Mapping[str, Any] | None = None
    bbox: Sequence[float] | str | None = None
    intersects: Any = None
    datetime: Any = None
    ids: Iterable[Any] | None = None
    order_by: str | Sequence[str] | None = None
    limit: int | None = None
    geometry_field: str | None = None
    time_field: str | None = None

    def __post_init__(self) -> None:
        for name, normalize in NORMALIZERS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, normalize(value))
        if self.where is None and self.params:
            raise QueryError("params= are values for the placeholders of where=, which is missing")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Query) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    @property
    def _text(self) -> str:
        """What it is compared by: parameters may be arrays, which have no truth value."""
        return json.dumps(self.to_json(), sort_keys=True, default=repr)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Make the query that `to_json` recorded.

        Raises
        ------
        QueryError
            Where the record is not one of a query.
        """
        if not isinstance(record, Mapping):
            raise QueryError(f"a recorded query is a mapping, not {type(record).__name__}")
        names = [field.name for field in fields(cls)]
        for name in record:
            if name not in names:
                raise QueryError(unknown_name("query option", name, names))
        decoded = {name: from_json(record[name]) for name in ("params", "ids") if name in record}
        return cls(**(dict(record) | decoded))

    def to_json(self) -> dict[str, Any]:
        """Record the options that are given, as JSON."""
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        record = {name: value for name, value in options.items() if value is not None}
        if self.intersects is not None:
            record["intersects"] = shapely.to_wkt(self.intersects, rounding_precision=-1)
        if self.datetime is not None:
            record["datetime"] = str(self.datetime)
        return {name: to_json(value) for name, value in record.items()}

    @property
    def conditions(self) -> set[str]:
        """The options that say which rows are wanted, whatever their order and limit."""
        names = ("where", "bbox", "intersects", "datetime", "ids")
        return {name for name in names if getattr(self, name) is not None}

    @property
    def depends_on_now(self) -> bool:
        """Whether the answer depends on when it was asked."""
        order = as_texts("order_by", self.order_by) or ()
        return any(NOW.search(text) for text in (self.where or "", *order))


def as_query(where: str | Query | None, *options: Any) -> Query:
    """Return a query that is passed whole, or make it of `where` and the options after it.

    A `QueryError` is raised where a query is passed with options beside it.
    """
    if not isinstance(where, Query):
        return Query(where, *options)
    if any(option is not None for option in options):
        raise QueryError("a Query has all conditions, the order and the limit: pass it alone")
    return where


def _checked_where(where: Any) -> str:
    if not isinstance(where, str):
        raise QueryError(f"where= is one SQL expression as text, not {type(where).__name__}")
    if not where.strip():
        raise QueryError("where= is empty; leave it out to find every granule")
    return where


def _checked_params(params: Any) -> Mapping[str, Any]:
    parameters(params)
    return dict(params)


def _checked_ids(ids: Any) -> tuple[Any, ...]:
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise QueryError("ids= is a list of ids; for one, pass a list of one")
    return tuple(value.as_py() if isinstance(value, pa.Scalar) else value for value in ids)


def _checked_order(order_by: Any) -> str | tuple[str, ...]:
    names = as_texts("order_by", order_by) or ()
    return order_by if isinstance(order_by, str) else names


def _checked_limit(limit: Any) -> int:
    if isinstance(limit, bool) or not isinstance(limit, SupportsIndex) or operator.index(limit) < 0:
        raise QueryError(f"limit={limit!r} is not a number of granules")
    return operator.index(limit)


NORMALIZERS = {
    "where": _checked_where,
    "params": _checked_params,
    "bbox": corners,
    "intersects": geometry,
    "datetime": interval,
    "ids": _checked_ids,
    "order_by": _checked_order,
    "limit": _checked_limit,
}
"""What checks an option of a query, and gives it in one form."""


def view_attributes(
    query: Query,
    source: Source,
    fields: Sequence[str],
    count: int,
    variables: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Describe a view of `count` granules in its root's attributes, as JSON."""
    attributes: dict[str, Any] = {
        "version": 1,
        "collection": source.label,
        "snapshot": source.snapshot,
        "query": query.to_json(),
        "fields": list(fields),
        "count": count,
    }
    if variables is not None:
        attributes["variables"] = list(variables)
    if query.depends_on_now:
        attributes["opened"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return attributes
