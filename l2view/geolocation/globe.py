"""The map of longitude and latitude, and its seam at ±180°."""

from __future__ import annotations

import math

import shapely
import shapely.affinity

GLOBE = shapely.box(-180, -90, 180, 90)


def wrap_geometry(shape: shapely.Geometry, *, both_sides: bool = False) -> shapely.Geometry:
    """Return a geometry whose longitudes go on beyond ±180 with every part moved within them.

    With `both_sides`, what touches the antimeridian is at -180 as well as at 180.
    """
    west, _, east, _ = shape.bounds
    if west >= -180 and east <= 180 and not (both_sides and (west == -180 or east == 180)):
        return shape
    start, stop = math.floor((west + 180) / 360), math.ceil((east - 180) / 360)
    if both_sides:
        start, stop = math.ceil((west - 180) / 360), math.floor((east + 180) / 360)
    pieces = []
    for turn in range(start, max(start, stop) + 1):
        strip = shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)
        piece = shapely.intersection(shape, strip)
        pieces.append(shapely.affinity.translate(piece, xoff=-360 * turn))
    moved = shapely.union_all(pieces)
    return shape if moved.equals(shape) else moved


def rectangle(
    west: float, south: float, east: float, north: float, *, both_sides: bool = False
) -> shapely.Geometry:
    """Return a rectangle; west > east, or east > 180, crosses the antimeridian."""
    if east - west >= 360 - 1e-9:
        return shapely.box(-180, south, 180, north)
    turns = max(math.ceil((west - east) / 360), 0)
    box = shapely.box(west, south, east + 360 * turns, north)
    return wrap_geometry(box, both_sides=both_sides)
