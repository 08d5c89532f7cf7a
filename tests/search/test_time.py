"""Searching by time: intervals, units, ends that are open."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import zarr
from builders import put, texts
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import MemoryStore

import l2view
from l2view.errors import FieldError, QueryError
from l2view.search.time import interval


@pytest.fixture
def collection(store: MemoryStore) -> l2view.Collection:
    return l2view.Collection(store)


def rows(table: pa.Table) -> list[int]:
    return table["idx"].to_pylist()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("2025-06-03", [2]),
        ("2025-06", list(range(20))),
        ("2025", list(range(20))),
        ("2024", []),
        ("2025-06-03T10:00:00Z", [2]),
        ("2025-06-03T10", [2]),
        ("2025-06-03T12:00+02:00", [2]),
        ("2025-06-03T10:00:00.000Z", [2]),
        ("2025-06-03T10:00:01Z", []),
        ("2025-06-03/2025-06-04", [2, 3]),
        ("2025-06-03T10:00:00Z/2025-06-04T10:00:00Z", [2, 3]),
        ("2025-06-03T10:00:01Z/2025-06-04T09:59:59Z", []),
        ("../2025-06-02", [0, 1]),
        ("2025-06-19/..", [18, 19]),
        ("/2025-06-02", [0, 1]),
        ("2025-06-19T00:00:00Z/9999-12-31T00:00:00Z", [18, 19]),
        ("0001-01-01/2025-06-02", [0, 1]),
        (date(2025, 6, 3), [2]),
        (datetime(2025, 6, 3, 10), [2]),
        (datetime(2025, 6, 3, 10, tzinfo=UTC), [2]),
        (np.datetime64("2025-06-03T10:00"), [2]),
        ((date(2025, 6, 3), None), list(range(2, 20))),
        ((None, datetime(2025, 6, 3, 10)), [0, 1, 2]),
        (["2025-06-03", "2025-06-03"], [2]),
    ],
)
def test_datetime(v3_store: MemoryStore, said: Any, expected: list[int]) -> None:
    assert rows(l2view.search(v3_store, datetime=said)) == expected


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("yesterday", "no instant such as 2025-06-01"),
        ("2025-13-01", "2025-13-01"),
        ("2025-06-03/2025-06-01", "ends before it begins"),
        ("../..", "open at both ends"),
        ("a/b/c", "has 3 parts"),
        (7, "no instant such as"),
        (np.datetime64("NaT", "s"), "no instant such as"),
        ((np.datetime64("NaT", "us"), "2025"), "no instant such as"),
        ((None, np.datetime64("NaT", "ns")), "no instant such as"),
        ("", "open at both ends"),
    ],
)
def test_datetime_that_is_none(v3_store: MemoryStore, said: Any, why: str) -> None:
    with pytest.raises(QueryError, match=why):
        l2view.search(v3_store, datetime=said)


def intervals(unit: str, **fields: list[str | None]) -> l2view.Collection:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    for name, values in fields.items():
        put(meta, name, np.array([v or "NaT" for v in values], dtype=f"datetime64[{unit}]"))
    return l2view.Collection(root.store)


def test_the_end_belongs_to_its_field() -> None:
    collection = intervals("ms", date=["2025-06-01"], end_date=["2025-06-04"])
    assert rows(collection.search(datetime="2025-06-03")) == [0]
    collection = intervals("ms", start_datetime=["2025-06-01"], end_datetime=["2025-06-04"])
    assert rows(collection.search(datetime="2025-06-03")) == [0]
    collection = intervals("ms", time=["2025-06-01"])
    assert rows(collection.search(datetime="2025-06-01")) == [0]


def test_time_fields_by_name() -> None:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    put(meta, "sensed", np.array(["2025-06-01", "2025-07-01"], "M8[s]"))
    put(meta, "datetime", texts(["2025-06-01", "2025-07-01"]))
    with pytest.raises(FieldError, match='the field "datetime" is string, not a timestamp'):
        l2view.search(root.store, datetime="2025-07")
    assert rows(l2view.search(root.store, datetime="2025-07", time_field="sensed")) == [1]
    with pytest.raises(FieldError, match='no field "sensd"; did you mean "sensed"'):
        l2view.search(root.store, datetime="2025-07", time_field="sensd")


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=6),
    st.integers(-8, 8),
    st.integers(-8, 8),
    st.sampled_from(["s", "ms", "us", "ns"]),
)
def test_intervals_are_closed_in_every_unit(
    offsets: list[int], first: int, last: int, unit: str
) -> None:
    """Against plain comparisons, around instants that the unit may not hold."""
    base = np.datetime64("2025-06-01T00:00:00", unit)
    times = base + np.array(offsets).astype(f"m8[{unit}]")
    root = zarr.create_group(MemoryStore())
    put(root.create_group("meta"), "date", times)
    low, high = (np.datetime64("2025-06-01", "us") + np.timedelta64(n, "us") for n in (first, last))
    if low > high:
        low, high = high, low
    precise = times.astype("M8[ns]")
    # An instant in microseconds stands for the whole of that microsecond.
    after = (high + np.timedelta64(1, "us")).astype("M8[ns]")
    expected = np.flatnonzero((precise >= low.astype("M8[ns]")) & (precise < after)).tolist()
    assert rows(l2view.search(root.store, datetime=(low, high))) == expected


def test_interval_is_stac() -> None:
    span = interval("2025-06-01/..")
    assert span.start == np.datetime64("2025-06-01", "ns").astype(int)
    assert span.stop is None
    assert interval("9999-12-31").stop == 253_402_300_800 * 10**9
    assert str(interval("2025-06-01T12:00:00.5+02:00")) == "/".join(["2025-06-01T10:00:00.5Z"] * 2)
    assert interval(pd.Timestamp("2025-06-01T00:00:00.000000001")).start == span.start + 1
    day = interval(np.datetime64("2025-06-01"))
    assert day == interval("2025-06-01") == interval(date(2025, 6, 1))
    assert interval("2025-06") == interval(("2025-06-01", "2025-06-30"))


def times_of(unit: str) -> l2view.Collection:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    put(meta, "id", texts("ab"))
    put(meta, "datetime", np.array(["2025-06-01T00:00:00", "2025-06-01T00:00:01"], f"M8[{unit}]"))
    return l2view.Collection(root.store)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_are_compared_beyond_the_unit_of_their_field(unit: str) -> None:
    collection = times_of(unit)
    at = {"x": datetime(2025, 6, 1, 0, 0, 0, 500_000)}
    assert rows(collection.search("datetime < $x", params=at)) == [0]
    assert rows(collection.search("datetime = $x", params=at)) == []
    assert rows(collection.search("datetime > TIMESTAMP '2025-06-01T00:00:00.5'")) == [1]
    assert rows(collection.search("datetime < '2025-06-01T00:00:00.5'")) == [0]


def test_the_last_instant_of_numpy_is_an_end() -> None:
    for last in (pd.Timestamp.max.to_datetime64(), np.datetime64(2**63 - 1, "us")):
        assert interval(("2025-01-01", last)).start == 1_735_689_600 * 10**9


def test_open_ends_far_away_and_starts_in_nanoseconds() -> None:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    starts = ["2025-06-01", "2025-06-01", "2025-06-01", "NaT"]
    ends = ["2025-06-03", "NaT", "9999-12-31T23:59:59", "2025-06-02"]
    put(meta, "start_datetime", np.array(starts, "M8[ns]"))
    put(meta, "end_datetime", np.array(ends, "M8[s]"))
    assert rows(l2view.search(root.store, datetime="2025-06-02")) == [0, 2, 3]
    assert rows(l2view.search(root.store, datetime="2025-06-01")) == [0, 1, 2]
    assert rows(l2view.search(root.store, datetime="9999-01-01/..")) == [2]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_granules_that_take_time(unit: str) -> None:
    collection = intervals(
        unit,
        datetime=["2025-06-01T12:00", None, "2025-06-05T00:00"],
        start_datetime=["2025-06-01T00:00", "2025-06-02T00:00", None],
        end_datetime=["2025-06-03T00:00", "2025-06-02T06:00", None],
    )
    assert rows(collection.search(datetime="2025-06-02")) == [0, 1]
    assert rows(collection.search(datetime="2025-06-03T00:00:00Z/..")) == [0, 2]
    assert rows(collection.search(datetime="../2025-05")) == []
    assert rows(collection.search(datetime="2025-06-05")) == [2]


@pytest.mark.parametrize("unit", ["15m", "2h", "5D", "10s", "500ms", "3M"])
def test_a_span_of_several_units_is_as_long(unit: str) -> None:
    begin = np.datetime64("2025-06-01", unit)
    span = interval(begin)
    end = begin + np.timedelta64(1, unit)
    assert (span.start, span.stop) == tuple(
        int(edge.astype("datetime64[ns]").astype(np.int64)) for edge in (begin, end)
    )
