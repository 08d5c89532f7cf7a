"""Granule records of NASA's Common Metadata Repository (UMM-G 1.6) as granules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import shapely

from l2view.errors import IngestError
from l2view.geolocation.cell_outlines import of_ring, of_track
from l2view.geolocation.geometries import GEOMETRY_ERRORS
from l2view.geolocation.globe import rectangle
from l2view.ingest.granule import name_assets
from l2view.ingest.harvest.attributes import parse_end, parse_time

SIDES = (
    "WestBoundingCoordinate",
    "SouthBoundingCoordinate",
    "EastBoundingCoordinate",
    "NorthBoundingCoordinate",
)

FIELDS: Mapping[str, tuple[str | int, ...]] = {
    "collection": ("CollectionReference", "ShortName"),
    "product_version": ("CollectionReference", "Version"),
    "platform": ("Platforms", 0, "ShortName"),
    "instrument": ("Platforms", 0, "Instruments", 0, "ShortName"),
    "day_night": ("DataGranule", "DayNightFlag"),
    "cloud_cover": ("CloudCover",),
}
"""Fields, and where they stand in a record."""


def umm_of(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the UMM-G part of a record, None where it isn't one."""
    umm = record.get("umm", record)
    return umm if isinstance(umm, Mapping) and "GranuleUR" in umm else None


def record_of(umm: Mapping[str, Any]) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Return the id, files and fields of a UMM-G record; an `IngestError` says it has no file."""
    name = str(umm["GranuleUR"])
    members = umm.get("RelatedUrls") or ()
    links = [link for link in members if isinstance(link, Mapping) and link.get("URL")]
    urls: list[str] = []
    for kind in ("GET DATA", "GET DATA VIA DIRECT ACCESS"):
        urls = urls or [str(link["URL"]) for link in links if link.get("Type") == kind]
    if not urls:
        raise IngestError(f"the record {name} names no file to get")
    fields: dict[str, Any] = {"href": urls[0]}
    extent = umm.get("TemporalExtent")
    span = _at(extent, "RangeDateTime")
    start = _at(span, "BeginningDateTime") or _at(extent, "SingleDateTime")
    if start:
        end = _at(span, "EndingDateTime") or start
        # What is no time, or no place, is named where all fields are looked at.
        fields["datetime"] = fields["start_datetime"] = parse_time(start) or start
        fields["end_datetime"] = parse_end(end) or end
    geometry = _at(umm, "SpatialExtent", "HorizontalSpatialDomain", "Geometry")
    try:
        shapes = list(_shapes(geometry or {}))  # there may be but an orbit
        fields["bbox"] = shapely.to_wkb(shapely.union_all(shapes)) if shapes else None
    except GEOMETRY_ERRORS:
        fields["bbox"] = geometry
    fields |= {name: _at(umm, *keys) for name, keys in FIELDS.items()}
    orbit = _at(umm, "OrbitCalculatedSpatialDomains", 0)
    fields["orbit"] = _at(orbit, "OrbitNumber") or _at(orbit, "BeginOrbitNumber")
    cover = fields["cloud_cover"]
    fields["cloud_cover"] = float(cover) if isinstance(cover, int | float) else None
    return name, name_assets(urls), {k: v for k, v in fields.items() if v is not None}


def _at(value: Any, *keys: str | int) -> Any:
    """Return what stands within a record at some keys, None where nothing does."""
    for key in keys:
        try:
            value = value[key]
        except (LookupError, TypeError):
            return None
    return value


def _shapes(geometry: Mapping[str, Any]) -> Iterator[shapely.Geometry]:
    for polygon in geometry.get("GPolygons", ()):
        shape = of_ring(np.array(_points(polygon["Boundary"])))
        if shape is None:
            continue
        for hole in polygon.get("ExclusiveZone", {}).get("Boundaries", ()):
            inner = of_ring(np.array(_points(hole)))
            shape = shape if inner is None else shape.difference(inner)
        yield shape
    for box in geometry.get("BoundingRectangles", ()):
        yield rectangle(*(float(box[side]) for side in SIDES))
    for line in (
        *geometry.get("Lines", ()),
        *({"Points": [p]} for p in geometry.get("Points", ())),
    ):
        longitudes, latitudes = np.array(_points(line)).T
        shape = of_track(latitudes, longitudes)
        if shape is not None:
            yield shape


def _points(boundary: Mapping[str, Any]) -> list[tuple[float, float]]:
    return [(float(p["Longitude"]), float(p["Latitude"])) for p in boundary["Points"]]
