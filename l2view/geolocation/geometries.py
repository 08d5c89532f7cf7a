"""Geometries as people write them: shapely's, GeoJSON, WKT, WKB, and bboxes of numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import shapely
import shapely.geometry

POLE_MARGIN = 1.0
"""Degrees by which a grid's outermost cells may reach beyond a pole, which they are cut at."""


GEOMETRY_ERRORS = (
    shapely.errors.ShapelyError,
    *(ValueError, TypeError, KeyError, AttributeError, IndexError, NotImplementedError),
    OverflowError,
)
"""What is raised of a value that is no geometry."""


def parse_geometry(value: Any) -> shapely.Geometry:
    """Return a geometry from shapely, GeoJSON (dict or text), WKT, WKB or ``__geo_interface__``.

    What is none raises one of `GEOMETRY_ERRORS`.
    """
    if isinstance(value, shapely.Geometry):
        return value
    if isinstance(value, bytes):
        return shapely.from_wkb(value)
    if isinstance(value, str):
        if not value.lstrip().startswith("{"):
            return shapely.from_wkt(value)
        value = json.loads(value)
    value = getattr(value, "__geo_interface__", value)
    if not isinstance(value, dict):
        raise TypeError(f"not {value!r}; a rectangle is bbox=")
    if value.get("type") == "Feature":
        value = value["geometry"]
    if value.get("type") == "FeatureCollection":
        return shapely.union_all([parse_geometry(feature) for feature in value["features"]])
    return shapely.geometry.shape(value)


def bbox_corners(bbox: Iterable[Any]) -> tuple[float, float, float, float]:
    """Return west, south, east and north of a bbox of four numbers, or of six with heights.

    Latitudes up to `POLE_MARGIN` beyond a pole are the pole's. A `ValueError` or `TypeError` says
    that it is no bbox.
    """
    corners = tuple(float(value) for value in bbox)
    if len(corners) == 6:  # GeoJSON (RFC 7946, section 5)
        corners = (*corners[:2], *corners[3:5])
    west, south, east, north = corners
    if not (-90 - POLE_MARGIN <= south <= north <= 90 + POLE_MARGIN):
        raise ValueError(f"south ≤ north from -90 to 90, not {south:g} and {north:g}")
    if not all(math.isfinite(x) and abs(x) <= 360 for x in (west, east)):
        raise ValueError(f"west and east go from -180 to 180, not {west:g} and {east:g}")
    return west, max(south, -90.0), east, min(north, 90.0)
