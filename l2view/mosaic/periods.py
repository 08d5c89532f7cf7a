"""Periods of time, and the one that each instant falls into."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from l2view.errors import QueryError

__all__ = ["Period", "period_of"]

_DATES: dict[str, Literal["D", "W", "M", "Y"]] = {"D": "D", "W": "W", "M": "M", "Y": "Y"}
_TIMES: dict[str, Literal["h", "m", "s"]] = {"H": "h", "M": "m", "S": "s"}

_SECONDS = {
    "s": 1,
    "m": 60,
    "h": 3600,
    "D": 86_400,
    "W": 7 * 86_400,
    "M": 2_629_746,
    "Y": 31_556_952,
}
"""How long each unit is; of months and years, the mean."""

_LONGEST = 100_000
"""Years that a period may last."""

_FARTHEST = 180_000
"""Years from 1970 that an instant may be: 64 bits then hold the start of the longest period."""

_LOOKS = re.compile(r"^[pP](?=\d|[tT](?:\d|$))")
_ONE = re.compile(r"P(?:([0-9]+)([DWMY])|T([0-9]+)([HMS]))", re.IGNORECASE | re.ASCII)
_NUMBER = r"[0-9]+(?:[.,][0-9]+)?"
_DURATION = re.compile(rf"P(?:{_NUMBER}[DWMY])*(?:T(?:{_NUMBER}[HMS])+)?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Period:
    """A period of time, one after another."""

    count: int  # how many units it lasts, 1 or more
    # Days, weeks, months, years, hours, minutes or seconds, as NumPy writes them.
    unit: Literal["D", "W", "M", "Y", "h", "m", "s"]

    def starts(self, times: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
        """Return the instants at which the periods of `times` begin.

        - One day, week, month or year is the calendar's; a week begins on Monday.
        - Several months are counted from January 1970: 3 are the quarters, 6 the half-years.
        - Several years are counted from the year 0: 10 are the decades 1990, 2000, …
        - Several days are counted from the day of the earliest of `times`, several weeks from
          the Monday of its week.
        - Hours, minutes and seconds are counted from midnight of the earliest's day.

        Instants are microseconds, in any order; NaT has no period.

        Raises
        ------
        QueryError
            Where an instant is more than 180,000 years from 1970.
        """
        known = ~np.isnat(times)
        starts = np.full(times.shape, np.datetime64("NaT", "us"))
        if known.any():
            starts[known] = self._starts(times[known])
        return starts

    def _starts(self, times: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
        for time in (times.min(), times.max()):
            if abs(int(time.astype(np.int64))) > _FARTHEST * _SECONDS["Y"] * 10**6:
                raise QueryError(
                    f"the time {time} is more than {_FARTHEST:,} years from 1970, too far to be "
                    "put into a period; leave out the granules with such times"
                )
        tick = "D" if self.unit == "W" else self.unit
        step = self.count * 7 if self.unit == "W" else self.count
        ticks = times.astype(f"datetime64[{tick}]").astype(np.int64)
        origin = self._origin(times.min().astype("datetime64[D]"))
        starts = origin + (ticks - origin) // step * step
        return starts.astype(f"datetime64[{tick}]").astype("datetime64[us]")

    def _origin(self, day: np.datetime64) -> int:
        """Return the tick from which periods are counted if `day` is the earliest."""
        days = int(day.astype(np.int64))
        match self.unit:
            case "Y":
                return -1970
            case "M":
                return 0
            case "W":
                return days - (days + 3) % 7  # 1970 began on a Thursday
            case _:
                return days * _SECONDS["D"] // _SECONDS[self.unit]


def period_of(text: str) -> Period | None:
    """Return the period that an ISO 8601 duration of one unit names.

    Parameters
    ----------
    text
        ``"P1D"``, ``"P2W"``, ``"P3M"``, ``"P10Y"``, ``"PT6H"``, ``"PT30M"`` or ``"PT10S"``, in
        upper or lower case.

    Returns
    -------
    Period or None
        None where `text` doesn't begin as a duration does, with P and a digit or a T.

    Raises
    ------
    QueryError
        Where it begins so and isn't one whole number of one unit.
    """
    if not _LOOKS.match(text):
        return None
    match = _ONE.fullmatch(text)
    if match is None:
        raise QueryError(f"group_by={text!r} {_fault(text)}")
    days, date, seconds, time = match.groups()
    unit = _DATES[date.upper()] if date else _TIMES[time.upper()]
    digits = (days or seconds).lstrip("0")
    if not digits:
        raise QueryError(f"group_by={text!r} lasts no time; write 1 or more, as P1D")
    most = _LONGEST * _SECONDS["Y"] // _SECONDS[unit]
    if len(digits) > len(str(most)) or int(digits) > most:
        raise QueryError(
            f"group_by={text!r} is more than {_LONGEST:,} years; write a shorter one, as P10Y"
        )
    return Period(int(digits), unit)


def _fault(text: str) -> str:
    if not _DURATION.fullmatch(text):
        return (
            "is no duration such as P1D, P2W, P1M, P10Y, PT6H, PT30M or PT10S; put an SQL "
            'expression that begins with P and a digit or a T in brackets, as ("ptype")'
        )
    if re.search("[.,]", text):
        return "has a fraction; write a whole number of a smaller unit, as PT36H for P1.5D"
    return "has several units; write it in one, as P18M for P1Y6M or PT36H for P1DT12H"
