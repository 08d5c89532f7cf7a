"""Geometries as people write them: shapely's, GeoJSON, WKT, WKB, and bboxes of numbers."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import shapely
import shapely.geometry

from l2view.geolocation.globe import rectangle

POLE_MARGIN = 1.0
"""Degrees by which a grid's outermost cells may reach beyond a pole, which they are cut at."""

FARTHEST = 3600  # the degrees of longitude beyond which none is meant
BBOX_TEXT = re.compile(r"[-+\d.eE\s,\[\]()]+")
"""A bbox as a text: only numbers."""

GEOMETRY_ERRORS = (
    shapely.errors.ShapelyError,
    *(ValueError, TypeError, KeyError, AttributeError, IndexError, NotImplementedError),
    OverflowError,
)
"""What is raised of a value that is no geometry."""


def geometry_reason(error: Exception) -> str:
    """Say what is wrong with a value that is no geometry, by one of `GEOMETRY_ERRORS`."""
    text = str(error).removeprefix("ParseException: ")
    return f"it lacks {text}" if isinstance(error, KeyError) else text


def parse_geometry(value: Any) -> shapely.Geometry:
    """Return a geometry from shapely, GeoJSON (dict or text), WKT, WKB or ``__geo_interface__``.

    Numbers, also as a text, are a bbox. What is none raises one of `GEOMETRY_ERRORS`.
    """
    if isinstance(value, shapely.Geometry):
        return value
    if isinstance(value, bytes):
        return shapely.from_wkb(value)
    if isinstance(value, list | tuple | np.ndarray) or _is_bbox_text(value):
        return rectangle(*bbox_corners(value))
    if isinstance(value, str):
        if not value.lstrip().startswith("{"):
            return shapely.from_wkt(value)
        value = json.loads(value)
    value = getattr(value, "__geo_interface__", value)
    if not isinstance(value, dict):
        raise TypeError(f"it is {value!r}")
    if value.get("type") == "Feature":
        value = value["geometry"]
    if value.get("type") == "FeatureCollection":
        return shapely.union_all([parse_geometry(feature) for feature in value["features"]])
    return shapely.geometry.shape(value)


def bbox_corners(bbox: Any) -> tuple[float, float, float, float]:
    """Return west, south, east and north of a bbox of four numbers, or of six with heights.

    It may be a text, or a rectangle that `parse_geometry` takes. West > east crosses the
    antimeridian. Latitudes up to `POLE_MARGIN` beyond a pole are the pole's. One of
    `GEOMETRY_ERRORS` says that it is no bbox.
    """
    if _is_bbox_text(bbox):
        bbox = bbox.strip("[]() ").replace(",", " ").split()
    elif isinstance(bbox, str | dict | shapely.Geometry):
        shape = parse_geometry(bbox)
        if not shape.equals(shapely.box(*shape.bounds)):
            raise ValueError("a geometry that is no rectangle is intersects=")
        bbox = shape.bounds
    corners = tuple(float(value) for value in bbox)
    if len(corners) == 6:  # GeoJSON (RFC 7946, section 5)
        corners = (*corners[:2], *corners[3:5])
    if len(corners) != 4:
        raise ValueError(f"{len(corners)} numbers are not west, south, east and north")
    west, south, east, north = corners
    if not (-90 - POLE_MARGIN <= south <= north <= 90 + POLE_MARGIN):
        raise ValueError(f"south ≤ north from -90 to 90, not {south:g} and {north:g}")
    if not (max(abs(west), abs(east)) <= FARTHEST and east - west <= 360):
        raise ValueError(f"west and east are at most 360 apart, not {west:g} and {east:g}")
    if west > east and (west > 180 or east < -180):
        raise ValueError(f"west > east, one of them beyond ±180: {west:g} and {east:g}")
    return west, max(south, -90.0), east, min(north, 90.0)


def _is_bbox_text(value: Any) -> bool:
    return isinstance(value, str) and BBOX_TEXT.fullmatch(value) is not None
