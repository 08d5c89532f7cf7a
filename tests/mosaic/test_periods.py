"""Periods of time: what names them, and where the period of each instant begins."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import assume, given
from hypothesis import strategies as st

from l2view.errors import QueryError
from l2view.mosaic.groups import Period, period_of, solar_offsets

EPOCH = pd.Timestamp("2000-01-01")
LENGTHS = {"s": 1, "m": 60, "h": 3600, "D": 86_400, "W": 604_800}
SECOND = 10**6


def period(text: str) -> Period:
    found = period_of(text)
    assert found is not None
    return found


def us(*texts: str) -> np.ndarray[Any, np.dtype[np.datetime64]]:
    return np.array(texts, "datetime64[us]")


def same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.dtype("datetime64[us]")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("P1D", Period(1, "D")),
        ("P16D", Period(16, "D")),
        ("P2W", Period(2, "W")),
        ("P1M", Period(1, "M")),
        ("P10Y", Period(10, "Y")),
        ("PT6H", Period(6, "h")),
        ("PT1M", Period(1, "m")),
        ("PT30S", Period(30, "s")),
        ("p3m", Period(3, "M")),
        ("pt3m", Period(3, "m")),
        ("Pt3h", Period(3, "h")),
        ("P03M", Period(3, "M")),
        ("P" + "0" * 5000 + "3M", Period(3, "M")),
        ("P100000Y", Period(100_000, "Y")),
        ("P1200000M", Period(1_200_000, "M")),
    ],
)
def test_a_duration_of_one_unit_is_a_period(text: str, expected: Period) -> None:
    assert period_of(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "P",
        "p",
        "product",
        "platform = 'A'",
        "P-1M",
        "-P1M",
        "1M",
        " P1M",
        '"P1M"',
        "ptype",
        "(p1)",
    ],
)
def test_what_does_not_look_like_a_duration_is_none(text: str) -> None:
    assert period_of(text) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("P1M15D", "has several units; write it in one"),
        ("P1DT12H", "has several units"),
        ("PT1H30M", "has several units"),
        ("p1y6m", "has several units"),
        ("P0.5M", "has a fraction; write a whole number of a smaller unit"),
        ("PT1,5H", "has a fraction"),
        ("P1Y0.5M", "has a fraction"),
        ("P0D", "lasts no time; write 1 or more"),
        ("PT000S", "lasts no time"),
        ("P100001Y", "is more than 100,000 years; write a shorter one"),
        ("P1200001M", "is more than 100,000 years"),
        ("PT9999999999999S", "is more than 100,000 years"),
        ("P" + "9" * 5000 + "D", "is more than 100,000 years"),
        ("PT", "is no duration such as P1D"),
        ("P1", "is no duration such as P1D"),
        ("P1H", "is no duration"),
        ("PT1D", "is no duration"),
        ("PT1W", "is no duration"),
        ("PT1Y", "is no duration"),
        ("P1D ", "is no duration"),
        ("P1D\n", "is no duration"),
        ("PT1ſ", "is no duration"),
        ("P١D", "is no duration"),
        ("P1M/2020-01-01", "is no duration"),
        ("p1 || 'x'", "in brackets"),
    ],
)
def test_what_only_looks_like_one_says_what_to_write(text: str, says: str) -> None:
    with pytest.raises(QueryError) as caught:
        period_of(text)
    assert f"group_by={text!r} " in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PT1S", "2025-08-13T14:35:46"),
        ("PT20S", "2025-08-13T14:35:40"),
        ("PT1M", "2025-08-13T14:35"),
        ("PT10M", "2025-08-13T14:30"),
        ("PT1H", "2025-08-13T14"),
        ("PT6H", "2025-08-13T12"),
        ("PT48H", "2025-08-13"),
        ("P1D", "2025-08-13"),
        ("P5D", "2025-08-12"),
        ("P1W", "2025-08-11"),
        ("P3W", "2025-07-28"),
        ("P1M", "2025-08-01"),
        ("P3M", "2025-07-01"),
        ("P6M", "2025-07-01"),
        ("P5M", "2025-06-01"),
        ("P1Y", "2025-01-01"),
        ("P2Y", "2024-01-01"),
        ("P10Y", "2020-01-01"),
        ("P100Y", "2000-01-01"),
    ],
)
def test_where_the_period_of_one_instant_begins(text: str, expected: str) -> None:
    same(period(text).starts(us("2025-08-13T14:35:46.789")), us(expected))


dates = st.dates(date(1800, 1, 1))

UNITS = {"D": 86_400, "W": 7 * 86_400, "H": 3600, "M": 60, "S": 1}


@given(
    st.integers(1, 400),
    st.sampled_from("DWHMS"),
    st.datetimes(datetime(1850, 1, 1), datetime(2200, 1, 1)),
    st.datetimes(datetime(1950, 1, 1), datetime(2050, 1, 1)),
)
def test_periods_are_counted_from_the_epoch(
    count: int, unit: str, at: datetime, epoch: datetime
) -> None:
    origin = epoch.replace(microsecond=0)
    if unit in "DW":
        origin = origin.replace(hour=0, minute=0, second=0)
    if unit == "W":
        origin -= timedelta(days=origin.weekday())
    if unit == "M":
        origin = origin.replace(second=0)
    if unit == "H":
        origin = origin.replace(minute=0, second=0)
    length = timedelta(seconds=count * UNITS[unit])
    expected = origin + (at - origin) // length * length
    text = f"P{count}{unit}" if unit in "DW" else f"PT{count}{unit}"
    same(
        period(text).starts(us(at.isoformat()), us(epoch.isoformat())[0]), us(expected.isoformat())
    )


@given(
    st.integers(1, 40),
    st.sampled_from("MY"),
    st.dates(date(1800, 1, 1)),
    st.dates(date(1900, 1, 1)),
)
def test_months_and_years_are_counted_from_those_of_the_epoch(
    count: int, unit: str, at: date, epoch: date
) -> None:
    months, step = 12 * (at.year - epoch.year), count * (12 if unit == "Y" else 1)
    months += 0 if unit == "Y" else at.month - epoch.month
    first = 12 * epoch.year + (0 if unit == "Y" else epoch.month - 1) + months // step * step
    assume(first >= 12)
    expected = date(first // 12, first % 12 + 1, 1)
    starts = period(f"P{count}{unit}").starts(us(at.isoformat()), us(epoch.isoformat())[0])
    same(starts, us(expected.isoformat()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PT1S", "1969-12-31T23:59:59"),
        ("PT7M", "1969-12-31T23:56"),
        ("PT5H", "1969-12-31T22"),
        ("P1D", "1969-12-31"),
        ("P1W", "1969-12-29"),
        ("P1M", "1969-12-01"),
        ("P3M", "1969-10-01"),
        ("P1Y", "1969-01-01"),
        ("P10Y", "1960-01-01"),
    ],
)
def test_the_last_instant_before_1970(text: str, expected: str) -> None:
    same(period(text).starts(np.array([-1], "datetime64[us]")), us(expected))


@pytest.mark.parametrize("text", ["PT6H", "P1D", "P3D", "P1W", "P2W", "P1M", "P10Y"])
def test_nothing_and_no_time(text: str) -> None:
    same(period(text).starts(us()), us())
    same(period(text).starts(us("NaT", "NaT")), us("NaT", "NaT"))
    same(period(text).starts(us().reshape(0, 3)), us().reshape(0, 3))


def test_the_instants_stay_as_they_are_and_in_their_shape() -> None:
    times = us("2025-03-05T01", "NaT", "2025-01-02T18:00", "2025-03-08").reshape(2, 2)
    before = times.copy()
    expected = us("2025-03-01", "NaT", "2025-01-01", "2025-03-01").reshape(2, 2)
    same(period("P1M").starts(times), expected)
    same(times, before)


@pytest.mark.parametrize("text", ["PT1S", "P1D", "P1W", "P1M", "P1Y"])
@pytest.mark.parametrize("ticks", [-(2**63) + 1, 2**63 - 1])
def test_an_instant_too_far_is_an_error(text: str, ticks: int) -> None:
    far = np.datetime64(ticks, "us")
    with pytest.raises(QueryError, match=f"the time {far} is more than 180,000 years from"):
        period(text).starts(np.array([np.datetime64(0, "us"), far]))


@pytest.mark.parametrize("text", ["P100000Y", "P1200000M", "P5217746W", "PT3155695200000S"])
def test_the_longest_periods_do_not_overflow(text: str) -> None:
    times = us("-178000-01-01", "1969-12-31", "1970-01-01", "9999-12-31", "181900-01-01")
    starts = period(text).starts(times)
    assert (starts <= times).all()
    assert (times - starts < np.timedelta64(100_001 * 366, "D")).all()
    assert (np.diff(starts) >= np.timedelta64(0, "us")).all()


PANDAS = [
    ("P1D", "D"),
    ("P1W", "W-MON"),
    ("P1M", "MS"),
    ("P3M", "QS"),
    ("P1Y", "YS"),
    ("P3D", "3D"),
    ("PT6H", "6h"),
    ("PT7H", "7h"),
    ("PT45M", "45min"),
]


@pytest.mark.parametrize(("text", "freq"), PANDAS)
@pytest.mark.parametrize("first", ["2024-01-30T10:20", "1969-11-05T23:59:59", "1899-02-27"])
def test_as_pandas_resamples(text: str, freq: str, first: str) -> None:
    random = np.random.default_rng(7)
    hours = 24 * 20 if text.startswith("PT") else 24 * 900
    times = np.datetime64(first, "us") + random.integers(0, hours * 3600 * SECOND, 300).astype(
        "timedelta64[us]"
    )
    edges = np.unique(period(text).starts(times))
    times = np.concatenate([times, edges[1:], edges[1:] - np.timedelta64(1, "us")])
    series = pd.Series(np.arange(len(times)), index=pd.DatetimeIndex(times)).sort_index()
    expected = np.full(len(times), np.datetime64("NaT", "us"))
    origin = EPOCH if freq[0].isdigit() else "start_day"  # of the calendar's there is none
    for label, rows in series.resample(freq, label="left", closed="left", origin=origin):
        expected[rows.to_numpy()] = np.datetime64(label, "us")
    assert len(np.unique(expected)) > 2
    same(period(text).starts(times), expected)


periods = st.builds(
    Period, st.integers(1, 40), st.sampled_from(["D", "W", "M", "Y", "h", "m", "s"])
)
instants = st.lists(
    st.one_of(
        st.integers(-(10**17), 10**17),
        st.integers(-2 * 86_400 * SECOND, 2 * 86_400 * SECOND),
    ),
    min_size=1,
    max_size=30,
).map(lambda ticks: np.array(ticks, "datetime64[us]"))


def after(starts: np.ndarray, period: Period) -> np.ndarray:
    """The first instant after each of the periods that begin at `starts`."""
    if period.unit in LENGTHS:
        return starts + np.timedelta64(LENGTHS[period.unit] * period.count * SECOND, "us")
    whole = starts.astype(f"datetime64[{period.unit}]")
    assert (whole.astype("datetime64[us]") == starts).all()
    return (whole + np.timedelta64(period.count, period.unit)).astype("datetime64[us]")


@given(periods, instants)
def test_an_instant_lies_in_its_period(period: Period, times: np.ndarray) -> None:
    starts = period.starts(times)
    assert (starts <= times).all()
    assert (times < after(starts, period)).all()


@given(periods, instants)
def test_periods_neither_overlap_nor_leave_their_raster(period: Period, times: np.ndarray) -> None:
    starts = np.unique(period.starts(times))
    assert (after(starts, period)[:-1] <= starts[1:]).all()
    if period.unit in LENGTHS:
        step = LENGTHS[period.unit] * period.count * SECOND
        assert not ((starts - starts[0]).astype(np.int64) % step).any()
    else:
        count = starts.astype(f"datetime64[{period.unit}]").astype(np.int64)
        assert not ((count - (30 if period.unit == "Y" else 360)) % period.count).any()


@given(periods, instants)
def test_later_instants_have_no_earlier_periods(period: Period, times: np.ndarray) -> None:
    order = np.argsort(times, kind="stable")
    starts = period.starts(times)
    assert (np.diff(starts[order]) >= np.timedelta64(0, "us")).all()
    same(period.starts(times[order]), starts[order])


@given(periods, instants, st.data())
def test_a_start_is_in_its_own_period(
    period: Period, times: np.ndarray, data: st.DataObject
) -> None:
    starts = period.starts(times)
    same(period.starts(starts), starts)
    chosen = data.draw(st.lists(st.integers(0, len(times) - 1)))
    some = np.append(times[chosen], times.min())
    same(period.starts(some)[:-1], starts[chosen])


@given(periods, instants, st.data())
def test_an_instant_that_is_not_known_moves_nothing(
    period: Period, times: np.ndarray, data: st.DataObject
) -> None:
    where = data.draw(st.lists(st.integers(0, len(times)), max_size=4))
    holed = np.insert(times, where, np.datetime64("NaT", "us"))
    found = period.starts(holed)
    same(np.isnat(found).view("i1").astype("M8[us]"), np.isnat(holed).view("i1").astype("M8[us]"))
    same(found[~np.isnat(holed)], period.starts(times))


def test_solar_time_is_that_of_the_longitude() -> None:
    across = shapely.union_all([shapely.box(178, 0, 180, 1), shapely.box(-180, 0, -174, 1)])
    shapes = [shapely.Point(-90, 60), shapely.box(14, -1, 16, 1), across, None, shapely.Point()]
    hours = solar_offsets(np.array(shapes, dtype=object)) / np.timedelta64(1, "h")
    np.testing.assert_allclose(hours, [-6, 1, -178 / 15, np.nan, np.nan], atol=0.01)
