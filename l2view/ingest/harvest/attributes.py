"""Fields from the attributes of a file: ACDD, CF, GHRSST, and older styles.

The names are those of the Attribute Convention for Data Discovery 1.3, of the GHRSST Data
Specification 2.0, of the Climate and Forecast conventions, and of what the processors of
ASCAT, Sentinel-6 and MODIS write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import xarray as xr
import zarr

from l2view.ingest.harvest.values import unpacked, valid

TIMES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("time_coverage_start",), ("time_coverage_end",)),
    (("start_date", "start_time"), ("stop_date", "stop_time")),
    (("start_date", "start_time"), ("end_date", "end_time")),
    (("RangeBeginningDate", "RangeBeginningTime"), ("RangeEndingDate", "RangeEndingTime")),
    (("start_time",), ("stop_time",)),
    (("start_time",), ("end_time",)),
    (("first_measurement_time",), ("last_measurement_time",)),
    (("sensing_start_time_utc",), ("sensing_end_time_utc",)),
    (("StartTime",), ("EndTime",)),
    (("start_date",), ("stop_date",)),
    (("time_coverage_start",), ()),
    (("start_time",), ()),
    (("date",), ()),
)
"""The attributes that hold a beginning and an end, joined where there are two of each."""

FIELDS: Mapping[str, tuple[str, ...]] = {
    "platform": (
        "platform",
        "platform_name",
        "source_platform",
        "spacecraft",
        "satellite",
        "mission_name",
    ),
    "instrument": ("instrument", "sensor", "altimeter_sensor_name", "instrument_name"),
    "processing_level": ("processing_level",),
    "product_version": ("product_version",),
    "title": ("title",),
    "institution": ("institution",),
    "cycle": ("cycle_number",),
    "pass": ("pass_number",),
    "orbit": ("orbit_number", "start_orbit_number", "absolute_orbit_number"),
    "source": ("source",),
    "day_night": ("day_night_flag", "day_or_night"),
}
"""Fields, and the attributes that they are taken from, the first that there is."""


def harvest_attributes(group: zarr.Group, url: str) -> dict[str, Any]:
    """Return what the attributes of a granule say: when, from what, and which version."""
    attributes = dict(group.attrs)
    fields: dict[str, Any] = {}
    for name, candidates in FIELDS.items():
        found = next((_scalar(attributes[c]) for c in candidates if c in attributes), None)
        if found is not None:
            fields[name] = found
    start, end = times_of(attributes)
    if start is None:
        start, end = times_of_arrays(group)
    if start is not None:
        fields["datetime"] = fields["start_datetime"] = start
        fields["end_datetime"] = end if end is not None and end >= start else None
    return fields


def times_of(attributes: Mapping[str, Any]) -> tuple[datetime | None, datetime | None]:
    """Return the first and last time that attributes name, in UTC; None for what they don't."""
    for first, last in TIMES:
        start = instant(*(attributes.get(name) for name in first))
        if start is not None:
            end = instant(*(attributes.get(name) for name in last)) if last else None
            if end is not None or not last:
                return start, end
    return None, None


def instant(*parts: Any) -> datetime | None:
    """Return the time that one text, or a date and a time, stand for; None where they don't.

    Examples
    --------
    >>> instant("2015-07-02", "08:42:00"), instant("20190821T174811Z"), instant("soon")
    (datetime.datetime(2015, 7, 2, 8, 42), datetime.datetime(2019, 8, 21, 17, 48, 11), None)
    """
    if not parts or not all(isinstance(part, str) and part.strip() for part in parts):
        return None
    text = "T".join(part.strip() for part in parts)
    # The day of the year, as NASA's processors write it, and "UTC" for "Z".
    text = re.sub(r"\s*(UTC|GMT)$", "Z", text)
    for form in (None, "%Y-%jT%H:%M:%S.%fZ", "%Y%jT%H%M%SZ", "%Y%j%H%M%S"):
        try:
            at = datetime.fromisoformat(text) if form is None else datetime.strptime(text, form)
        except ValueError:
            continue
        return at.replace(tzinfo=None) if at.tzinfo is None else _utc(at)
    return None


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(tzinfo=None)


def times_of_arrays(group: zarr.Group) -> tuple[datetime | None, datetime | None]:
    """Return the first and last value of a granule's array of times, None where it has none."""
    for array in _time_arrays(group):
        raw = np.asarray(array[...])
        packing = {name: array.attrs[name] for name in ("units", "calendar") if name in array.attrs}
        some = raw[valid(array, raw)]
        if some.size == 0 or not np.isfinite(some).all():
            continue
        edges = np.array([some.min(), some.max()])
        if raw.dtype.kind == "M":
            first, last = edges.astype("datetime64[us]").tolist()
            return first, last
        edges = unpacked(array, edges)
        coder = xr.coders.CFDatetimeCoder(use_cftime=False, time_unit="us")
        try:
            decoded = coder.decode(xr.Variable(("edge",), edges, packing)).values
        except (ValueError, OverflowError):
            continue
        first, last = (value.astype("datetime64[us]").item() for value in decoded)
        return first, last
    return None, None


def _time_arrays(group: zarr.Group) -> Iterator[zarr.Array[Any]]:
    """Yield the arrays of times, those of the granule's own group first."""
    groups = [group]
    while groups:
        below: list[zarr.Group] = []
        for current in groups:
            for name, array in sorted(current.arrays()):
                named = name.lower() in ("time", "times") or array.attrs.get("standard_name") in (
                    "time",
                )
                counted = " since " in str(array.attrs.get("units", ""))
                timed = array.dtype.kind == "M" or (array.dtype.kind in "iuf" and counted)
                if named and timed and array.size:
                    yield array
            below.extend(child for _, child in sorted(current.groups()))
        groups = below


def _scalar(value: Any) -> Any:
    """Return an attribute as one value: texts joined, lists of one taken apart."""
    if isinstance(value, list):
        if len(value) == 1:
            return _scalar(value[0])
        return ", ".join(map(str, value)) if value else None
    if isinstance(value, str):
        return value.strip() or None
    return value if isinstance(value, int | float | bool) else None
