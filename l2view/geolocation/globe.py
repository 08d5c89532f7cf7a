"""The map of longitude and latitude, and its seam at ±180°."""

from __future__ import annotations

import math

import shapely
import shapely.affinity


def split_at_antimeridian(shape: shapely.Geometry, *, both_sides: bool = False) -> shapely.Geometry:
    """Return a geometry with every part of it moved to where longitudes go from -180 to 180.

    Parameters
    ----------
    shape
        In degrees, in one piece across the antimeridian: its longitudes go on beyond ±180.
    both_sides
        Whether what touches the antimeridian is at -180 as well as at 180.
    """
    west, _, east, _ = shape.bounds
    if west >= -180 and east <= 180 and not (both_sides and (west == -180 or east == 180)):
        return shape
    first, last = math.floor((west + 180) / 360), math.ceil((east - 180) / 360)
    if both_sides:
        first, last = math.ceil((west - 180) / 360), math.floor((east + 180) / 360)
    parts = []
    for turn in range(first, max(first, last) + 1):
        strip = shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)
        part = shapely.intersection(shape, strip)
        parts.append(shapely.affinity.translate(part, xoff=-360 * turn))
    moved = shapely.union_all(parts)
    return shape if moved.equals(shape) else moved
