"""Footprints on a world map, as SVG that needs nothing but a browser."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.data import ocean_geojson
from shapely.geometry import shape

WIDTH = 480
"""Pixels of a map."""

SMALLEST = 12.0
"""Degrees of longitude that a map shows at least."""

Box = tuple[float, float, float, float]
WORLD: Box = (-180.0, -90.0, 180.0, 90.0)


@lru_cache(maxsize=1)
def ocean() -> shapely.Geometry:
    """Return the oceans, as Natural Earth draws them for the whole world (EPSG:4326).

    odc-geo carries them, so that nothing is downloaded.
    """
    polygons = [shape(feature["geometry"]) for feature in ocean_geojson()["features"]]
    return shapely.make_valid(shapely.union_all(polygons))


def map_box(footprints: NDArray[Any]) -> Box:
    """Return the part of the world to draw for `footprints`: west, south, east, north.

    Twice as wide as high, with a margin around them.
    """
    if len(footprints) == 0:
        return WORLD
    west, south, east, north = shapely.total_bounds(footprints)
    width = max(1.3 * (east - west), 2.6 * (north - south), SMALLEST)
    if width >= 300:
        return WORLD
    x = float(np.clip((west + east) / 2, -180 + width / 2, 180 - width / 2))
    y = float(np.clip((south + north) / 2, -90 + width / 4, 90 - width / 4))
    return (x - width / 2, y - width / 4, x + width / 2, y + width / 4)


def map_svg(footprints: NDArray[Any], title: str) -> str:
    """Return a map of `footprints` as an SVG element.

    Parameters
    ----------
    footprints
        Geometries in EPSG:4326, of shape (n,).
    title
        What a screen reader says it is.
    """
    west, south, east, north = box = map_box(footprints)
    scale = WIDTH / (east - west)
    height = round((north - south) * scale)
    water = shapely.simplify(shapely.clip_by_rect(ocean(), *box), 1 / scale)
    opacity = max(0.08, min(0.5, 4 / max(len(footprints), 1)))
    shapes = shapely.clip_by_rect(shapely.simplify(footprints, 0.3 / scale), *box)
    drawn = "".join(_path(outline, box, scale) for outline in shapes)
    return (
        f'<svg role="img" aria-label="{title}" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{title}</title>"
        f'<rect width="{WIDTH}" height="{height}" fill="#f3efe6"/>'
        f'<path d="{_path(water, box, scale)}" fill="#cfe3ee" fill-rule="evenodd"/>'
        f'<path d="{drawn}" fill="#c8452d" fill-opacity="{opacity:.2f}" stroke="#8f2a17" '
        f'stroke-width="0.8"/>'
        f'<text x="4" y="{height - 5}" font-size="10" fill="#555" font-family="sans-serif">'
        f"{_degrees(west, 'W', 'E')} to {_degrees(east, 'W', 'E')}, "
        f"{_degrees(south, 'S', 'N')} to {_degrees(north, 'S', 'N')}</text></svg>"
    )


def _path(geometry: shapely.Geometry, box: Box, scale: float) -> str:
    """Return a geometry as the data of an SVG path."""
    west, _, _, north = box
    segments = []
    for member in shapely.get_parts(geometry):
        if member.geom_type == "GeometryCollection":
            segments.append(_path(member, box, scale))
        elif member.geom_type == "Polygon":
            rings = (member.exterior, *member.interiors)
            segments.extend(
                _line(shapely.get_coordinates(ring), west, north, scale) + "Z" for ring in rings
            )
        elif member.geom_type == "LineString":
            segments.append(_line(shapely.get_coordinates(member), west, north, scale))
        elif member.geom_type == "Point" and not member.is_empty:
            x, y = (member.x - west) * scale, (north - member.y) * scale
            segments.append(f"M{x - 1.5:.1f} {y:.1f}h3M{x:.1f} {y - 1.5:.1f}v3")
    return "".join(segments)


def _line(coordinates: NDArray[Any], west: float, north: float, scale: float) -> str:
    if len(coordinates) == 0:
        return ""
    points = [f"{(x - west) * scale:.1f} {(north - y) * scale:.1f}" for x, y in coordinates]
    return "M" + "L".join(points)


def _degrees(value: float, negative: str, positive: str) -> str:
    return f"{abs(value):.0f}°{negative if value < 0 else positive if value > 0 else ''}"
