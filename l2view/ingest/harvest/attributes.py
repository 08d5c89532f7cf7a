"""Fields from the attributes of a file: ACDD, CF, GHRSST, and older styles.

The names are those of the Attribute Convention for Data Discovery 1.3, of the GHRSST Data
Specification 2.0, of the Climate and Forecast conventions, and of what the processors of
ASCAT, Sentinel-6 and MODIS write.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from l2view.arrays.cf import CALENDARS, Packing
from l2view.ingest.harvest.descriptions import Nodes, descriptions, nodes_of

ACDD = ("timecoveragestart", "timecoverageend")
"""The attributes of the Attribute Convention for Data Discovery, which none of others overrules."""

EDGES = (
    *(("beginning", "ending"), ("begin", "end"), ("start", "end"), ("start", "stop")),
    ("first", "last"),
)
"""What attributes of a beginning have in their names, and those of the end instead."""

INSTANT = re.compile(r"date|time|utc|sensing|validity|position")
"""What else they have in their names."""

OTHER_TIMES = re.compile(
    r"process|production|creat|generat|calibrat|ephemeris|pge|software|run|mission|project|launch"
    r"|climatolog|baseline|reference|campaign|archiv|upload|revis|modif|issue|publi|epoch"
)
"""What has times of its own, which aren't those of the measurement."""

ALONE = (
    *("calendardate", "starttime", "startdate", "startutc", "sensingstart", "rangebeginningdate"),
    *("beginningdate", "sensingstarttimeutc", "firstmeasurementtime", "firstmeastime"),
    *("imageacquisitiontime", "acquisitiontime", "acquisitiondate", "observationtime"),
)
"""The attributes that tell a time although none tells the end."""

CALENDAR = ("year", "month", "day", "hour", "minute", "second")

TIME = re.compile("times?")
OTHERWISE = re.compile(
    r"(?!.*(refer|creat|produc|process|epoch|bound|bnds|valid|calib|cross|leap|launch|analysis))"
    r".*(time|juld).*"
)
"""The standard or very names of arrays of times, and other names."""

LATER = (
    (re.compile(r"(?<=\d)([T ]\d\d(:?)\d\d\2)60(?!\d)"), r"\g<1>59", timedelta(seconds=1)),
    (re.compile(r"T24:00(:00(\.0+)?)?(?=Z?$)"), "T00:00:00", timedelta(days=1)),
)
"""A 60th second, as in POSIX, and the end of a day (ISO 8601, 4.3.3 and 4.2.3): what is how much
later than which text says."""

COMPACT = re.compile(r"([\d:T /_-]+?)(?:\.(\d+))?Z?")
"""Times that ISO 8601 doesn't have so, with what is left of a second."""

DIGITS = re.compile(r"\d{9,}(\.\d+)?Z?")
EARLIEST = 1850
"""The first year that digits without separators may be."""

FORMS: Mapping[int, str] = {
    5: "%y%j",
    7: "%Y%j",
    8: "%Y%m%d",
    9: "%y%j%H%M",
    10: "%Y%m%d%H",
    11: "%Y%j%H%M",
    12: "%Y%m%d%H%M",
    13: "%Y%j%H%M%S",
    14: "%Y%m%d%H%M%S",
    16: "%Y%j%H%M%S%f",
    17: "%Y%m%d%H%M%S%f",
    20: "%Y%m%d%H%M%S%f",
}
"""What so many digits are: dates, or years and days of the year as NASA's processors write them."""

DATE_TIME = "TIFFTAG_DATETIME"
"""GDAL's name for when an image was made (TIFF 6.0, DateTime)."""

PERIODS = {7: timedelta(1), 8: timedelta(1), 10: timedelta(hours=1), 12: timedelta(minutes=1)}
"""How long the period takes that so many digits name: a day, an hour or a minute."""

ZONE = re.compile(r"(?<=[T \d:]\d\d)([+-]\d\d:?\d\d)$")
"""An offset from UTC behind a time (ISO 8601, 4.3.13)."""

LEAP_SECONDS = np.array(
    [
        *("1981-07", "1982-07", "1983-07", "1985-07", "1988-01", "1990-01", "1991-01", "1992-07"),
        *("1993-07", "1994-07", "1996-01", "1997-07", "1999-01", "2006-01", "2009-01", "2012-07"),
        *("2015-07", "2017-01"),
    ],
    "M8[us]",
)
"""What follows each leap second since GPS's epoch (IERS, Bulletin C)."""

EPOCHS = {"GPS 1980-01-06T00": 0, "TAI 1993-01-01T00": 8, "TAI 1958-01-01T00": -19}
"""The epochs from which scales without leap seconds count, with those of UTC until then."""

SCALE = re.compile(r"(?<![A-Z])(UTC|GPS|TAI)(?![A-Z])")
"""What names a scale of time, in an array's attributes or its name."""

WORDS = (
    *("%d-%b-%YT%H:%M:%S", "%d-%b-%Y %H:%M:%S", "%Y:%m:%d %H:%M:%S", "%b %d %Y %H:%M:%S"),
    *("%a %b %d %H:%M:%S %Y", "%Y-%m"),
)
"""Forms of SNAP's and of TIFF's times (TIFF 6.0, DateTime), of C's, and of months."""

SINGLE_DIGIT = re.compile(r"(?<![\d.,])(\d)(?!\d)")

DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
"""A length of time (ISO 8601, 5.5.2.2) without months, whose lengths differ."""

TEXTS = frozenset({"platform", "instrument", "processing_level", "product_version", "title"})
NUMBERS = frozenset({"cycle", "pass", "orbit"})
"""Fields that are texts, or integers, whatever a file has them as."""

FIELDS: Mapping[str, tuple[str, ...]] = {
    "platform": (
        *("platform", "platformname", "sourceplatform", "spacecraft", "satellite", "missionname"),
        *("satellitename", "associatedplatformshortname", "platformshortname", "mission"),
    ),
    "instrument": (
        *("instrument", "sensor", "altimetersensorname", "instrumentname", "sensorname"),
        *("associatedinstrumentshortname", "instrumentshortname", "sensorshortname"),
    ),
    "processing_level": ("processinglevel", "productlevel"),
    "product_version": ("productversion", "versionid"),
    "title": ("title",),
    "institution": ("institution",),
    "cycle": ("cyclenumber",),
    "pass": ("passnumber",),
    "orbit": (
        *("orbitnumber", "startorbitnumber", "absoluteorbitnumber", "granulenumber"),
        "aggregatebeginningorbitnumber",
    ),
    "source": ("source",),
    "day_night": ("daynightflag", "dayornight"),
}
"""Fields, and the attributes that they are taken from, the first that there is. By `fold_name`."""


def harvest_attributes(
    file: zarr.Group | Nodes, described: Sequence[Mapping[str, Any]] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return a granule's time, platform, version, … by its file's descriptions, and notes."""
    described = list(descriptions(file)) if described is None else described
    fields: dict[str, Any] = {}
    for name, candidates in FIELDS.items():
        values = (_scalar(d[c]) for d in described for c in candidates if c in d)
        value = next((value for value in values if value is not None), None)
        if value is not None:
            fields[name] = _convert(name, value)
    spans = (span for span in map(attribute_times, described) if span[0] is not None)
    span = next(spans, None)
    start, end, notes = array_times(file) if span is None else (*span, [])
    if start is None:  # which may be the day on which the file was made
        start = next(filter(None, (_named_time(d, "date") for d in described)), None)
    if start is not None:
        fields["datetime"] = fields["start_datetime"] = start
        fields["end_datetime"] = end
    return fields, notes


def attribute_times(attributes: Mapping[str, Any]) -> tuple[datetime | None, datetime | None]:
    """Return the first and last time that attributes name, in UTC; None for what they don't.

    Their names are as `fold_name` gives them.
    """
    start, end = parse_time(attributes.get(ACDD[0])), parse_end(attributes.get(ACDD[1]))
    if start is not None:
        length = DURATION.fullmatch(str(attributes.get("timecoverageduration")))
        if end is None and length is not None:
            days, hours, minutes, seconds = (float(part or 0) for part in length.groups())
            with suppress(OverflowError):
                end = start + timedelta(days, hours=hours, minutes=minutes, seconds=seconds)
        return start, end
    names = [n for n in attributes if INSTANT.search(n) and not OTHER_TIMES.search(n)]
    for first, last in EDGES:
        for name in sorted((n for n in names if first in n), key=len):
            start = _named_time(attributes, name)
            end = _named_time(attributes, name.replace(first, last), is_end=True)
            if start is not None and end is not None:
                return start, end
    alone = (_named_time(attributes, name) for name in ALONE)
    return next(filter(None, alone), None) or _calendar_time(attributes), None


def _calendar_time(attributes: Mapping[str, Any]) -> datetime | None:
    """Return the time of six numbers, as profiles of radio occultations have it."""
    try:
        *date, second = (float(attributes[name]) for name in CALENDAR)
        return datetime(*map(int, date)) + timedelta(seconds=second)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _named_time(
    attributes: Mapping[str, Any], name: str, *, is_end: bool = False
) -> datetime | None:
    """Return the time of an attribute, with that of the day if it has one of its own."""
    clock = "timeofday" if name == "calendardate" else name.replace("date", "time")
    parse = parse_end if is_end else parse_time
    joined = parse(attributes.get(name), attributes.get(clock)) if clock != name else None
    return joined or parse(attributes.get(name))


def parse_time(*parts: Any) -> datetime | None:
    """Return the time that one text, or a date and a time, stand for; None where they don't.

    Examples
    --------
    >>> parse_time("2015-07-02", "08:42:00"), parse_time("20190821T174811Z"), parse_time("soon")
    (datetime.datetime(2015, 7, 2, 8, 42), datetime.datetime(2019, 8, 21, 17, 48, 11), None)
    """
    if not parts or not all(isinstance(part, str) and part.strip() for part in parts):
        return None
    text = _plain_text(*parts)
    for pattern, earlier, by in LATER:
        if (before := pattern.sub(earlier, text)) != text:
            at = parse_time(before)
            with suppress(OverflowError):  # after the year 9999
                return None if at is None else at + by
            return None
    if not DIGITS.fullmatch(text):  # of which ISO 8601's parser takes any as a separator
        with suppress(ValueError, OverflowError):  # in UTC it may be in the year 0
            at = datetime.fromisoformat(text)
            return at if at.tzinfo is None else at.astimezone(UTC).replace(tzinfo=None)
    for form in WORDS:
        whole, _, fraction = text.removesuffix("Z").partition(".")
        with suppress(ValueError):
            return datetime.strptime(whole, form).replace(microsecond=_microseconds(fraction))
    match = COMPACT.fullmatch(text)
    digits = re.sub(r"\D", "", match[1]) if match else ""
    instant = parse_digits(digits) if len(digits) not in (5, 9) else None
    if match is None or instant is None or instant.year < EARLIEST:  # seconds since some epoch
        return None
    return instant.replace(microsecond=_microseconds(match[2])) if match[2] else instant


def parse_digits(digits: str) -> datetime | None:
    """Return the time that digits without separators stand for; None where they don't."""
    form = FORMS.get(len(digits), "-")
    with suppress(ValueError):
        at = datetime.strptime(digits, form)
        # strptime takes day 366 of any year for the next one's first.
        return at if at.strftime(form).startswith(digits) else None
    return None


def parse_end(*parts: Any) -> datetime | None:
    """Return the last instant of the month, day, hour or minute that texts stand for as an end.

    Examples
    --------
    >>> parse_end("2017-04-14"), parse_end("2017-04-14T10:27:00")
    (datetime.datetime(2017, 4, 14, 23, 59, 59, 999999), datetime.datetime(2017, 4, 14, 10, 27))
    """
    at = parse_time(*parts)
    match = at and COMPACT.fullmatch(ZONE.sub("", _plain_text(*parts)))
    if at is None or not match or match[2]:
        return at
    periods = {6: timedelta(monthrange(at.year, at.month)[1]), **PERIODS}
    period = periods.get(len(re.sub(r"\D", "", match[1])))
    return at if period is None else at + (period - timedelta.resolution)


def parse_field(name: str, text: Any) -> datetime | None:
    """Return the time that a field's text stands for."""
    return parse_end(text) if name == "end_datetime" else parse_time(text)


def _plain_text(*parts: str) -> str:
    """Return a time's text in capitals, with Z for UTC, and days such as 1993-1-1 of two digits."""
    text = "T".join(part.strip() for part in parts).upper()
    text = re.sub(r"\s*(UTC|GMT)$", "Z", text.removeprefix("UTC="))
    return SINGLE_DIGIT.sub(r"0\1", text)


def _microseconds(digits: str) -> int:
    return int(digits[:6].ljust(6, "0"))


def array_times(file: zarr.Group | Nodes) -> tuple[datetime | None, datetime | None, list[str]]:
    """Return the first and last value of a granule's array of times, None without one, and notes.

    Those called otherwise than ``time`` come last. Times of other calendars are converted, if both
    are days of the Gregorian one; those of scales without leap seconds, if their epoch is known.
    """
    nodes = nodes_of(file)
    calendars: set[str] = set()
    for array in chain(_time_arrays(nodes), _time_arrays(nodes, OTHERWISE)):
        raw = np.asarray(array[...])
        packing = Packing.of_array(array)
        valid = packing.valid(raw)
        times = raw.ravel() if valid is None else raw[valid]
        if times.size == 0 or not np.isfinite(times).all():
            continue
        with suppress(ValueError, OverflowError, ImportError):
            edges = packing.decode(np.array([times.min(), times.max()]), time_unit="us")
            if edges.dtype.kind == "M":
                return _in_utc(edges.astype("datetime64[us]"), array)
            if edges.dtype.kind == "O":
                start, end = map(_gregorian, edges.tolist())
                return start, end, []
        calendars.add(str(array.attrs.get("calendar", "standard")))
    others = sorted(name for name in calendars if name.lower() not in CALENDARS)
    notes = [f"its times are in the calendar {name}, which has other days" for name in others]
    return None, None, notes


def _in_utc(
    edges: NDArray[np.datetime64], array: zarr.Array[Any]
) -> tuple[datetime, datetime, list[str]]:
    """Return the first and last value of an array as times in UTC, and a note if they may not be.

    Values of GPS and TAI are decoded without leap seconds, as xarray does.
    """
    name = array.name.rpartition("/")[2]
    texts = [*map(array.attrs.get, ("time_scale", "time_system", "long_name")), name]
    named = (set(SCALE.findall(str(text).upper())) for text in (*texts, array.attrs.get("units")))
    scales = next(filter(None, named), {"UTC"})
    notes: list[str] = []
    if "UTC" not in scales:
        scale = min(scales)
        units = {"units": array.attrs.get("units", "days since 0001-01-01")}
        epochs = Packing.of(units, np.dtype("f8")).decode(np.zeros(1), time_unit="us")
        before = EPOCHS.get(f"{scale} {epochs.astype('M8[h]')[0]}")
        if before is None:
            limit = {"GPS": 18, "TAI": 37}[scale]
            notes = [f"its {name} is in {scale}, taken as UTC: it may be {limit} s off"]
        else:
            steps = (np.arange(1, len(LEAP_SECONDS) + 1) - before).astype("m8[s]")
            counts = (LEAP_SECONDS[:, None] + steps[:, None] <= edges).sum(axis=0)
            edges = edges - (counts - before).astype("m8[s]")
    start, end = edges.tolist()
    return start, end, notes


def _gregorian(at: Any) -> datetime:
    """Return a time of cftime's; a `ValueError` says that the Gregorian calendar lacks the day.

    A Julian day is another day there. Those of a model's calendar are called the same.
    """
    if at.calendar in ("julian", "standard", "gregorian"):
        at = at.change_calendar("proleptic_gregorian")
    return datetime(at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond)


def _time_arrays(nodes: Nodes, names: re.Pattern[str] = TIME) -> Iterator[zarr.Array[Any]]:
    """Yield the arrays of times by what they are called, the granule's own group's first."""
    for path, array in nodes.items():
        if not isinstance(array, zarr.Array):
            continue
        meaning = array.attrs.get("standard_name") or path.rpartition("/")[2].lower()
        has_name = names.fullmatch(str(meaning)) is not None
        has_units = " since " in str(array.attrs.get("units", ""))
        is_time = array.dtype.kind == "M" or (array.dtype.kind in "iuf" and has_units)
        if has_name and is_time and array.size:
            yield array


def _convert(name: str, value: Any) -> Any:
    """Return a value in the type that all files of a collection have."""
    if name in NUMBERS:
        try:
            number = float(value)
        except ValueError:
            return None
        return int(number) if number.is_integer() else None
    return str(value) if name in TEXTS else value


def _scalar(value: Any) -> Any:
    """Return an attribute as one value: texts joined, lists of one taken apart."""
    if isinstance(value, list):
        if len(value) == 1:
            return _scalar(value[0])
        return ", ".join(map(str, value)) if value else None
    if isinstance(value, str):
        return value.strip() or None
    return value if isinstance(value, int | float | bool) else None
