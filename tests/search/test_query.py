"""A query as a value: what it refuses, and its way through JSON."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from zarr.storage import MemoryStore

import l2view
from l2view import Query, QueryError
from l2view.search.parameters import from_json, scalar, to_json

ZONE = pa.timestamp("us", tz="+02:00")
PARAMS = [
    None,
    True,
    3,
    2**63 - 1,
    np.uint64(2**63),
    np.int8(3),
    0.1,
    np.float32(0.1),
    float("nan"),
    float("-inf"),
    "text",
    np.str_("text"),
    b"\x00\xff",
    Decimal("0.50"),
    date(2025, 6, 1),
    time(1, 2, 3, 4),
    datetime(2025, 6, 1, 0, 0, 0, 250_000),
    datetime(2025, 6, 1, 2, tzinfo=UTC),
    timedelta(days=2, microseconds=3),
    pd.Timestamp("2025-06-01T00:00:00.000000001"),
    pd.Timedelta(5, "ns"),
    np.datetime64("2025-06-03"),
    np.datetime64("2025-06-03T01:02", "m"),
    np.datetime64("2025-06-03T01:02:03.000000004"),
    np.timedelta64(5, "s"),
    shapely.Point(0.1, 1 / 3),
    [1, 2],
    ["a", None],
    np.array([1.5, 2.5]),
    [datetime(2025, 6, 1), datetime(2025, 6, 2)],
    pa.scalar(5, pa.int16()),
    pa.scalar(5, pa.timestamp("ns")),
    pa.scalar(5, pa.duration("ns")),
    pa.scalar(datetime(2025, 6, 1), ZONE),
    pa.scalar([1, 2]),
]


def through_text(query: Query) -> Query:
    return Query.from_json(json.loads(json.dumps(query.to_json(), allow_nan=False)))


def meaning(value: Any) -> Any:
    """Give a parameter as SQL has it, whatever the width of its type or its unit of time."""
    value = scalar("x", value)
    if pa.types.is_timestamp(value.type) or pa.types.is_duration(value.type):
        kind = pa.duration if pa.types.is_duration(value.type) else pa.timestamp
        return value.cast(kind("ns")).value
    return value.as_py()


@pytest.mark.parametrize("value", PARAMS)
def test_a_parameter_stays_what_it_is(value: Any) -> None:
    again = through_text(Query(where="orbit = $x", params={"x": value})).params
    assert again is not None
    assert str(meaning(again["x"])) == str(meaning(value))
    assert to_json(from_json(to_json(value))) == to_json(value)


def test_a_time_with_a_zone_is_the_same_as_arrow_has_it() -> None:
    at = datetime(2025, 6, 1, 12, tzinfo=UTC)
    assert scalar("x", pa.scalar(at, ZONE)).equals(scalar("x", at))


QUERIES = [
    {},
    {"where": "cloud_cover < 20"},
    {"where": "cloud_cover < $x AND id <> $y", "params": {"x": np.float32(20), "y": "S2A/001"}},
    {"bbox": (-10, -10, 30, 30)},
    {"bbox": np.array([170.5, -10, -170.5, 30])},
    {"intersects": shapely.Point(1 / 3, 0.1).buffer(20)},
    {"intersects": {"type": "Point", "coordinates": [200, 5]}},
    {"intersects": "POLYGON ((0 0, 30 0, 30 30, 0 0))"},
    {"datetime": "2025-06-03"},
    {"datetime": "2025-06-03/.."},
    {"datetime": (None, date(2025, 6, 4))},
    {"datetime": datetime(2025, 6, 2)},
    {"datetime": ("2025", np.datetime64("2025-06-02T12:00:00", "ns"))},
    {"ids": ["S2A/002", "S2A/005"]},
    {"ids": pa.array(["S2A/002"])},
    {"order_by": "cloud_cover DESC, idx"},
    {"order_by": ["cloud_cover DESC NULLS FIRST", "idx"]},
    {"where": "orbit > 2", "limit": np.int64(3), "order_by": "id"},
    {"bbox": (-10, -10, 30, 30), "geometry_field": "bbox"},
    {"datetime": "2025-06-03", "time_field": "datetime"},
]


@pytest.mark.filterwarnings("ignore::l2view.MissingGranuleWarning")
@pytest.mark.parametrize("options", QUERIES)
def test_a_query_can_be_asked_again(store: MemoryStore, options: dict[str, Any]) -> None:
    query = Query(**options)
    again = through_text(query)
    assert again == query
    assert set(again.to_json()) == set(options)
    fields = {name: options.get(name) for name in ("geometry_field", "time_field")}
    collection = l2view.Collection(store, **fields)
    given = {name: getattr(query, name) for name in options if name not in fields}
    found = collection.search(**given)
    recorded = {name: value for name, value in query.to_json().items() if name not in fields}
    assert collection.search(**recorded).equals(found)
    view = collection.open(**given)
    assert Query.from_json(view.attrs["l2view"]["query"]).to_json() == query.to_json()
    assert view.attrs["l2view"]["count"] == len(found)


def test_ids_are_gone_through_once() -> None:
    query = Query(ids=iter(["a", "b"]))
    assert query.to_json() == query.to_json() == {"ids": ["a", "b"]}


def test_an_instant_is_not_a_second() -> None:
    at = datetime(2025, 6, 1)
    query = through_text(Query(datetime=at))
    assert query.datetime == Query(datetime=at).datetime != Query(datetime="2025-06-01").datetime
    assert query.datetime.stop - query.datetime.start == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": 1}, "where= is one SQL expression as text, not int"),
        ({"where": " "}, "where= is empty"),
        ({"params": {"x": 1}}, "values for the placeholders of where=, which is missing"),
        ({"where": "orbit = $x", "params": [1]}, "params= maps names to values"),
        ({"where": "orbit = $x", "params": {"x": object()}}, "SQL has no value for"),
        ({"bbox": (1, 2, 3)}, "is not .west, south, east, north."),
        ({"intersects": "POINT EMPTY"}, "an empty geometry"),
        ({"datetime": "../.."}, "open at both ends"),
        ({"ids": "S2A/001"}, "a list of one"),
        ({"ids": 1}, "a list of one"),
        ({"order_by": 1}, "order_by= is a text or a list of texts"),
        ({"limit": -1}, "limit=-1 is not a number of granules"),
        ({"limit": True}, "limit=True is not a number of granules"),
        ({"limit": 1.5}, "limit=1.5 is not a number of granules"),
    ],
)
def test_what_a_query_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        Query(**options)


def test_a_record_of_something_else() -> None:
    with pytest.raises(QueryError, match='no query option "wher"; did you mean "where"'):
        Query.from_json({"wher": "true"})
    with pytest.raises(QueryError, match="'date': 'tomorrow' can't be read"):
        Query.from_json({"where": "true", "params": {"x": {"date": "tomorrow"}}})
