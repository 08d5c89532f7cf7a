"""Spans of time, and the granules that meet them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, cast

import numpy as np
import pyarrow as pa
from datafusion import Expr, literal

from l2view.errors import FieldError, QueryError
from l2view.meta.schema import find_field
from l2view.search.context import column

TIMES = ("datetime", "date", "start_datetime", "time")
"""Time fields of a granule, in order of preference."""

STARTS = {"datetime": "start_datetime"}
ENDS = {
    "datetime": "end_datetime",
    "date": "end_date",
    "start_datetime": "end_datetime",
    "time": "end_time",
}
"""The fields that begin and end the interval of which a time field is one instant."""

UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}  # Arrow's units of time, in nanoseconds

SECOND = 10**9


@dataclass(frozen=True)
class Interval:
    """A span of time, in nanoseconds since 1970 in UTC; None where it is open.

    Python's integers: the years that people write for "for ever" are beyond 64 bits of them.
    """

    start: int | None
    stop: int | None
    """The first instant after it."""

    def __str__(self) -> str:
        start = ".." if self.start is None else f"{_text(self.start)}Z"
        if self.stop is None:
            return f"{start}/.."
        stop = _text(self.stop - 1)
        # A text without a fraction stands for the whole second.
        return f"{start}/{stop}{'' if '.' in stop else '.0'}Z"


def interval(value: Any) -> Interval:
    """Parse a STAC ``datetime`` as an interval.

    A part that names a year, month, day, hour, minute or second stands for the whole of it;
    one with a fraction, and a `datetime.datetime`, for that instant.

    It may also be a datetime or date, a pair of these with None for an open end, or an `Interval`.
    """
    if isinstance(value, Interval):
        return value
    if isinstance(value, str) and "/" in value:
        value = value.split("/")
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise QueryError(f"datetime={value!r} has {len(value)} parts; an interval has two")
        start, stop = (_instant(end) for end in value)
        span = Interval(start.start, stop.stop)
    else:
        span = _instant(value)
    if span.start is None and span.stop is None:
        raise QueryError("datetime= is open at both ends; leave it out")
    if span.start is not None and span.stop is not None and span.start >= span.stop:
        raise QueryError(f"datetime={value!r} ends before it begins")
    return span


_PRECISIONS = {4: "Y", 7: "M", 10: "D", 13: "h", 16: "m", 19: "s"}
_INSTANT = re.compile(
    r"^(\d{4}(?:-\d\d(?:-\d\d(?:[T ]\d\d(?::\d\d(?::\d\d)?)?)?)?)?)(\.\d{1,9})?"
    r"(Z|[+-]\d\d:?\d\d)?$",
    re.IGNORECASE,
)


def _instant(value: Any) -> Interval:
    """Parse one end of an interval as a span."""
    if value is None or (isinstance(value, str) and value.strip() in ("", "..")):
        return Interval(None, None)
    if isinstance(value, np.datetime64) and not np.isnat(value):
        return Interval(*_calendar_span(value, *np.datetime_data(value.dtype)))
    if isinstance(value, datetime) and value == value:  # which pandas' NaT is not
        instant = nanoseconds(value)
        return Interval(instant, instant + 1)
    text = value.isoformat() if type(value) is date else value
    match = _INSTANT.match(text.strip().upper()) if isinstance(text, str) else None
    if match is None:
        raise QueryError(
            f"datetime={value!r} is no instant such as 2025-06-01 or 2025-06-01T12:00:00Z"
        )
    text, fraction, zone = match.groups()
    unit = _PRECISIONS[len(text)]
    try:
        start, stop = _calendar_span(np.datetime64(text, cast("Any", unit)), unit)
    except ValueError as error:
        raise QueryError(f"datetime={value!r}: {error}") from error
    if fraction:
        start += int(fraction[1:].ljust(9, "0"))
        stop = start + 1
    offset = 0
    if zone and zone != "Z":
        offset = (int(zone[1:3]) * 60 + int(zone[-2:])) * 60 * SECOND
        offset = offset if zone[0] == "-" else -offset
    return Interval(start + offset, stop + offset)


def nanoseconds(instant: datetime) -> int:
    """Return an instant as nanoseconds since 1970, one without a zone taken as UTC."""
    instant = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    elapsed = instant - datetime(1970, 1, 1, tzinfo=UTC)
    microseconds = (elapsed.days * 86_400 + elapsed.seconds) * SECOND + elapsed.microseconds * 1000
    return microseconds + int(getattr(elapsed, "nanoseconds", 0))  # of a pandas Timestamp


def _calendar_span(instant: np.datetime64, unit: str, count: int = 1) -> tuple[int, int]:
    """Return the ends of the year, day, second, … that `instant` lies in, or so many from it on."""
    begin = instant.astype(f"datetime64[{unit}]")
    if unit in UNITS:  # whose last one ends beyond what NumPy has
        start = int(begin.astype(np.int64)) * UNITS[unit]
        return start, start + count * UNITS[unit]
    ends = np.array([begin, begin + np.timedelta64(count, cast("Any", unit))])
    start, stop = ends.astype("datetime64[s]").astype(np.int64).tolist()
    return start * SECOND, stop * SECOND


def _text(instant: int) -> str:
    seconds, fraction = divmod(instant, SECOND)
    digits = f"{fraction:09d}".rstrip("0")
    return f"{np.datetime64(seconds, 's')}{'.' if digits else ''}{digits}"


def time_field(schema: pa.Schema, name: str | None = None) -> str:
    """Return the field that says when a granule was taken.

    A `FieldError` is raised where there is none, or it isn't a timestamp.
    """
    name = find_field(schema, name, TIMES, "time", "time_field")
    kind = schema.field(name).type
    if not pa.types.is_timestamp(kind):
        raise FieldError(
            f'the field "{name}" is {kind}, not a timestamp; search it with where=, or name '
            "another with time_field="
        )
    return name


def time_conditions(schema: pa.Schema, span: Interval, field: str | None = None) -> list[Expr]:
    """Return the conditions under which a granule's time, by default in `TIMES`, meets `span`."""
    name = time_field(schema, field)
    starts = _timestamps(schema, STARTS.get(name), name)
    stops = _timestamps(schema, ENDS.get(name), name)
    if len(stops) == 1:  # without an end, a granule is one instant
        starts = stops
    ends = ((span.start, stops + starts, "__ge__"), (span.stop, starts + stops, "__lt__"))
    return [_compare(schema, names, at, how) for at, names, how in ends if at is not None]


def _timestamps(schema: pa.Schema, *names: str | None) -> list[str]:
    """Return the distinct `names` of timestamp columns."""
    columns = (name for name in dict.fromkeys(names) if name and name in schema.names)
    return [name for name in columns if pa.types.is_timestamp(schema.field(name).type)]


def _compare(schema: pa.Schema, names: list[str], at: int, how: str) -> Expr:
    """Compare the first value that isn't NULL with the instant `at`."""
    condition, earlier_null = literal(False), literal(True)
    for name in dict.fromkeys(names):
        value = column(name)
        comparison = _side(value, schema.field(name).type.unit, at, how)
        condition = condition | (earlier_null & value.is_not_null() & comparison)
        earlier_null = earlier_null & value.is_null()
    return condition


def _side(value: Expr, unit: str, at: int, how: str) -> Expr:
    """Compare one column with the instant `at`.

    The instant is rounded up to the column's own unit: a multiple of that unit is at or after
    it, or before it, just when it is so of the instant itself.
    """
    ticks = -(-at // UNITS[unit])
    if not -(2**63) < ticks < 2**63:  # every instant of the column lies on one side of it
        return literal((ticks < 0) == (how == "__ge__"))
    instant = pa.scalar(ticks, pa.int64()).cast(pa.timestamp(unit))
    comparison: Expr = getattr(value, how)(literal(instant))
    return comparison
