"""Granule records of NASA's Common Metadata Repository (UMM-G 1.6) as granules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import shapely

from l2view.errors import IngestError
from l2view.geolocation.cell_outlines import of_ring, of_track
from l2view.geolocation.globe import rectangle
from l2view.ingest.granule import name_assets
from l2view.ingest.harvest.attributes import parse_end, parse_time

SIDES = (
    "WestBoundingCoordinate",
    "SouthBoundingCoordinate",
    "EastBoundingCoordinate",
    "NorthBoundingCoordinate",
)


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
    temporal = umm.get("TemporalExtent", {})
    span = temporal.get("RangeDateTime", {})
    start = span.get("BeginningDateTime") or temporal.get("SingleDateTime")
    if start:
        end = span.get("EndingDateTime") or start
        # What is no time is named where all fields are looked at.
        fields["datetime"] = fields["start_datetime"] = parse_time(start) or start
        fields["end_datetime"] = parse_end(end) or end
    domain = umm.get("SpatialExtent", {}).get("HorizontalSpatialDomain", {})
    if shapes := list(_shapes(domain.get("Geometry", {}))):  # and not only an orbit
        fields["bbox"] = shapely.to_wkb(shapely.union_all(shapes))
    reference = umm.get("CollectionReference", {})
    if reference.get("ShortName"):
        fields["collection"] = reference["ShortName"]
        fields["product_version"] = reference.get("Version")
    platforms = umm.get("Platforms") or ()
    if platforms:
        fields["platform"] = platforms[0].get("ShortName")
        instruments = platforms[0].get("Instruments") or ()
        fields["instrument"] = instruments[0].get("ShortName") if instruments else None
    fields["day_night"] = umm.get("DataGranule", {}).get("DayNightFlag")
    cover = umm.get("CloudCover")
    fields["cloud_cover"] = None if cover is None else float(cover)
    orbits = umm.get("OrbitCalculatedSpatialDomains") or ()
    if orbits:
        fields["orbit"] = orbits[0].get("OrbitNumber") or orbits[0].get("BeginOrbitNumber")
    return name, name_assets(urls), {k: v for k, v in fields.items() if v is not None}


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
