"""Footprints on a world map, as SVG that needs nothing but a browser."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.data import ocean_geojson
from shapely.geometry import shape

WIDTH = 480  # pixels of a map
SMALLEST = 12.0  # degrees of longitude that a map shows at least

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
    """Return a map of `footprints` (EPSG:4326) as an SVG element with a title."""
    west, south, east, north = box = map_box(footprints)
    scale = WIDTH / (east - west)
    height = round((north - south) * scale)
    water = shapely.simplify(shapely.clip_by_rect(ocean(), *box), 1 / scale)
    opacity = max(0.08, min(0.5, 4 / max(len(footprints), 1)))
    shapes = shapely.clip_by_rect(shapely.simplify(footprints, 0.3 / scale), *box)
    return (
        f'<svg role="img" aria-label="{title}" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{title}</title>"
        f'<rect width="{WIDTH}" height="{height}" fill="#f3efe6"/>'
        f'<path d="{_path(water, box, scale)}" fill="#cfe3ee" fill-rule="evenodd"/>'
        f'<path d="{_path(shapes, box, scale)}" fill="#c8452d" fill-opacity="{opacity:.2f}" '
        f'stroke="#8f2a17" stroke-width="0.8"/>'
        f'<text x="4" y="{height - 5}" font-size="10" fill="#555" font-family="sans-serif">'
        f"{_degrees(west, 'W', 'E')} to {_degrees(east, 'W', 'E')}, "
        f"{_degrees(south, 'S', 'N')} to {_degrees(north, 'S', 'N')}</text></svg>"
    )


def _path(geometries: Any, box: Box, scale: float) -> str:
    """Return geometries as the data of an SVG path."""
    west, _, _, north = box
    moved = shapely.transform(geometries, lambda at: (at - [west, north]) * [scale, -scale])
    parts = shapely.get_parts(shapely.get_parts(moved))
    segments = []
    is_point = shapely.get_type_id(parts) == 0
    parts[is_point] = shapely.buffer(parts[is_point], 1.5, cap_style="square")
    for geometry in parts[~shapely.is_empty(parts)]:
        is_polygon = geometry.geom_type == "Polygon"
        for line in shapely.get_rings(geometry) if is_polygon else [geometry]:
            points = "L".join(f"{x:.1f} {y:.1f}" for x, y in shapely.get_coordinates(line))
            segments.append(f"M{points}{'Z' if is_polygon else ''}")
    return "".join(segments)


def _degrees(value: float, negative: str, positive: str) -> str:
    return f"{abs(value):.0f}°{negative if value < 0 else positive if value > 0 else ''}"
