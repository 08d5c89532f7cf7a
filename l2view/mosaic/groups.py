"""The order in which granules are composed, and the groups that become images of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from l2view.errors import L2ViewWarning, QueryError, warn
from l2view.meta.footprints import read_geometries
from l2view.mosaic.spec import MosaicSpec
from l2view.search import planning
from l2view.search.parameters import as_texts
from l2view.search.place import geometry_field
from l2view.search.time import time_field
from l2view.virtual.granules import Granules

TIME, GROUP = "time", "group"  # the dimension of groups of granules: of times, and of other values

SECONDS = {"s": 1, "m": 60, "h": 3600, "D": 86_400, "W": 604_800, "M": 2_629_746, "Y": 31_556_952}
"""How long each of NumPy's units is; of months and years, the mean."""

MAX_YEARS = 100_000  # the longest period

FARTHEST_YEARS = 180_000
"""Years from 1970 that an instant may be: 64 bits then hold the start of the longest period."""

EPOCH = np.datetime64("2000-01-01", "us")
"""What several days, months, … are counted from by default."""

SOLAR_DAY = "solar_day"
TINY_AREA = 1e-9  # in square degrees, what a point counts for

NUMBER = r"[0-9]+(?:[.,][0-9]+)?"
DURATION = re.compile(rf"P(?:{NUMBER}[DWMY])*(?:T(?:{NUMBER}[HMS])+)?", re.IGNORECASE | re.ASCII)
ONE_UNIT = re.compile(r"P(?:([0-9]+)([DWMY])|T([0-9]+)([HMS]))", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, eq=False)
class Layering:
    """How n granules are composed."""

    ranks: NDArray[np.int64]  # the position of each in the order, of shape (n,)
    groups: NDArray[np.int64]  # the group of each, -1 for none, of shape (n,)
    labels: NDArray[Any] | None = None  # of the groups, None where all granules are one image
    dimension: str = TIME  # of the groups

    @property
    def count(self) -> int:
        """How many granules are in a group."""
        return int((self.groups >= 0).sum())

    def of_granules(self, rows: NDArray[np.int64]) -> Layering:
        """Return the layering of these granules alone, without groups that have none of them."""
        present = np.zeros(len(self.groups), dtype=bool)
        present[rows] = True
        groups = np.where(present, self.groups, -1)
        if self.labels is None:
            return replace(self, groups=groups)
        used, numbers = np.unique(groups[groups >= 0], return_inverse=True)
        groups[groups >= 0] = numbers
        return replace(self, groups=groups, labels=self.labels[used])


def layering(granules: Granules, spec: MosaicSpec) -> Layering:
    """Return how granules are composed, by the options `order_by` and `group_by`."""
    ranks = _ranks(granules, spec.order_by)
    if spec.group_by is None:
        return Layering(ranks, np.zeros(len(granules), dtype=np.int64))
    values, missing = _group_values(granules, spec.group_by, spec.first_instant)
    if missing.all():
        raise QueryError(
            f"no granule is in a group of group_by={spec.group_by!r}: all are NULL; group by "
            "another field"
        )
    if missing.any():
        problem = f"are in no group of group_by={spec.group_by!r}, and no part of the mosaic"
        warn(granules.describe(np.flatnonzero(missing), problem), L2ViewWarning)
    labels, numbers = np.unique(values, return_inverse=True)
    groups = np.full(len(granules), -1, dtype=np.int64)
    groups[~missing] = numbers
    return Layering(ranks, groups, labels, TIME if labels.dtype.kind == "M" else GROUP)


def _ranks(granules: Granules, order_by: str | Sequence[str] | None) -> NDArray[np.int64]:
    if order_by is None or not as_texts("order_by", order_by):
        return np.arange(len(granules))
    names = granules.all_fields.names
    return planning.ranks(order_by, len(granules), names, granules.available)


def _group_values(
    granules: Granules, group_by: str, epoch: np.datetime64
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the values by which granules are grouped, and which granules have none."""
    if not isinstance(group_by, str) or not group_by.strip():
        raise QueryError(
            f'group_by={group_by!r} is neither a period, such as "P1M", nor an SQL expression'
        )
    text = group_by.strip()
    if re.fullmatch(r"[Tt]?\d+[DWMYHdwmyh]", text):
        raise QueryError(f'group_by={group_by!r}: did you mean "P{text}"?')
    names = granules.all_fields.names
    is_solar = text == SOLAR_DAY and SOLAR_DAY not in names
    period = Period(1, "D") if is_solar else period_of(text)
    if period is not None:
        column = granules.available([time_field(granules.all_fields)]).column(0)
        times = column.cast(pa.timestamp("us")).to_numpy().astype("M8[us]")
        if is_solar:
            field = geometry_field(granules.all_fields)
            times += solar_offsets(read_geometries(granules.available([field]).column(0)))
        missing = np.isnat(times)
        return period.starts(times[~missing], epoch), missing
    values = planning.values(group_by, len(granules), names, granules.available)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    missing = values.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_date(values.type) or pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us"))
    kind, values = values.type, values.drop_null()
    if pa.types.is_timestamp(kind):
        return values.to_numpy().astype("M8[us]"), missing
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return np.array(values.to_pylist(), dtype=str), missing
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind):
        return values.to_numpy(), missing
    raise QueryError(f"group_by= gives {kind}: group by times, texts or numbers")


def solar_offsets(shapes: NDArray[Any]) -> NDArray[np.timedelta64]:
    """Return how much later than in Greenwich it is at geometries in degrees, by their longitudes.

    It is NaT for None, and for what is empty.
    """
    parts, rows = shapely.get_parts(shapes, return_index=True)
    has_points = ~shapely.is_empty(parts)
    parts, rows = parts[has_points], rows[has_points]
    # Directions, of which the mean of parts on both sides of the antimeridian lies there, too.
    angles = np.radians(shapely.get_x(shapely.centroid(parts)))
    east, north = (
        np.bincount(rows, side * (shapely.area(parts) + TINY_AREA), len(shapes))
        for side in (np.cos(angles), np.sin(angles))
    )
    hours = np.arctan2(north, east) * 12 / np.pi
    has_place = np.isfinite(hours) & ((east != 0) | (north != 0))
    offsets = (np.where(has_place, hours, 0) * 3.6e9).astype("m8[us]")
    return np.where(has_place, offsets, np.timedelta64("NaT", "us"))


@dataclass(frozen=True)
class Period:
    """A period of time, one after another."""

    count: int  # how many units it lasts, 1 or more
    unit: str  # one of `SECONDS`

    def starts(
        self, times: NDArray[np.datetime64], epoch: np.datetime64 = EPOCH
    ) -> NDArray[np.datetime64]:
        """Return the instants in microseconds at which the periods of `times` begin.

        Days, weeks, months and years are the calendar's; a week begins on Monday. Several of a
        unit are counted from that of the epoch, so that periods don't depend on the granules.

        NaT has no period. An instant too far from 1970 is a QueryError.
        """
        starts, known = np.full(times.shape, np.datetime64("NaT", "us")), ~np.isnat(times)
        if not known.any():
            return starts
        for time in (times[known].min(), times[known].max()):
            if abs(int(time.astype(np.int64))) > FARTHEST_YEARS * SECONDS["Y"] * 10**6:
                raise QueryError(
                    f"the time {time} is more than {FARTHEST_YEARS:,} years from 1970, too far to "
                    "be put into a period; leave out the granules with such times"
                )
        tick, step = ("D", 7 * self.count) if self.unit == "W" else (self.unit, self.count)
        ticks = times[known].astype(f"datetime64[{tick}]").astype(np.int64)
        origin = int(epoch.astype(f"datetime64[{tick}]").astype(np.int64))
        if self.unit == "W":
            origin -= (origin + 3) % 7  # 1970 began on a Thursday
        begins = origin + (ticks - origin) // step * step
        starts[known] = begins.astype(f"datetime64[{tick}]").astype("datetime64[us]")
        return starts


def period_of(text: str) -> Period | None:
    """Return the period that an ISO 8601 duration of one unit names, such as ``"PT6H"``.

    None where the text doesn't begin as a duration does, with P and a digit or a T. Where it
    does and isn't one whole number of one unit, that is a QueryError.
    """
    if not re.match(r"[pP](?=\d|[tT](?:\d|$))", text):
        return None
    match = ONE_UNIT.fullmatch(text)
    if match is None:
        raise QueryError(f"group_by={text!r} {_fault(text)}")
    days, date, seconds, time = match.groups()
    unit = date.upper() if date else time.lower()
    digits = (days or seconds).lstrip("0")
    if not digits:
        raise QueryError(f"group_by={text!r} lasts no time; write 1 or more, as P1D")
    most = MAX_YEARS * SECONDS["Y"] // SECONDS[unit]
    if len(digits) > len(str(most)) or int(digits) > most:
        raise QueryError(
            f"group_by={text!r} is more than {MAX_YEARS:,} years; write a shorter one, as P10Y"
        )
    return Period(int(digits), unit)


def _fault(text: str) -> str:
    if not DURATION.fullmatch(text):
        return (
            "is no duration such as P1D, P2W, P1M, P10Y, PT6H, PT30M or PT10S; put an SQL "
            'expression that begins with P and a digit or a T in brackets, as ("ptype")'
        )
    if re.search("[.,]", text):
        return "has a fraction; write a whole number of a smaller unit, as PT36H for P1.5D"
    return "has several units; write it in one, as P18M for P1Y6M or PT36H for P1DT12H"
