"""Outlines of cells on the globe, as polygons in EPSG:4326.

What crosses the antimeridian or holds a pole is cut as GeoJSON (RFC 7946, 3.1.9) asks for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo import CRS

from l2view.geolocation.crs import has_other_meridian
from l2view.geolocation.globe import GLOBE, rectangle, wrap_geometry
from l2view.geolocation.granule import Georeference, Positions
from l2view.regrid.projection import (
    FARTHEST_LONGITUDE,
    largest_difference,
    longitude_arc,
    unit_vectors,
)

TOLERANCE = 0.01  # by how many degrees latitudes may be beyond the poles
RIBS = 48  # the rows of a swath that its outline is taken from where its edges are straight
MOST_RIBS = 400  # the most rows that each edge adds to them
POINTS = 9  # the most points of a row that it is taken from
SIDE = 64  # the points along each axis of a grid at which its cells are looked at
CELLS = 1024  # the cells of each side that it is to hold
EDGE = 192  # the points of each side of a grid that its outline is taken from

MIN_HELD = 0.9
"""The share of the cells within a grid that its outline holds, if it is the right one."""

MOST_OUTSIDE = 500  # the most cells that are added to an outline one by one
TINY = 1e-30  # the number below which none is a coordinate
MOST_FILLS = 64  # positions off the globe that are compared: those of fill are few different ones
UNWRITTEN = 0.01  # the part of such numbers from which an array isn't written
FAR = 5.0  # how far in degrees from (0, 0) all others lie where it stands for nothing
SLIVER = 1e-6  # the part of an outline's area that is none
BISECTIONS = 40  # how often the way to the edge of the globe is halved
TRACK_WIDTH = 0.05  # half the width in degrees that a track of single points is given
TRACK_TOLERANCES = (0.01, 0.02, 0.05, 0.1, 0.2)  # by how much its outline may be off, in degrees
TRACK_VERTICES = 56  # the most vertices of a track's line
TRACK_PIECES = 8  # into how many pieces the gaps of a track part it
TRACK_POINTS = 4096  # the points by which a track is told from a cloud
CLOUD_POINTS = 2**18  # the points of a cloud of which a hull is made at once
JUMP = 10.0  # how many times as far as its neighbours' a step is where a track is parted

HULL_GROWTH = 0.002
"""The part by which the hull of a cloud of points is larger than it, so that it holds them."""


def of_axes(lat: NDArray[Any], lon: NDArray[Any]) -> shapely.Geometry | None:
    """Return the rectangle that a grid covers, with half a cell around its centres."""
    with np.errstate(invalid="ignore"):
        lat, lon = lat[np.abs(lat) <= 90 + TOLERANCE], lon[np.abs(lon) <= FARTHEST_LONGITUDE]
    is_unwritten = len(lat) > 1 and len(lon) > 1 and not (lat.any() or lon.any())
    if len(lat) == 0 or len(lon) == 0 or is_unwritten:
        return None
    lon = np.unwrap(lon, period=360)
    # A single row is as wide as its columns are apart.
    dy, dx = _step(lat) / 2, _step(lon) / 2
    dy, dx = dy or dx or TRACK_WIDTH, dx or dy or TRACK_WIDTH
    south, north = max(lat.min() - dy, -90.0), min(lat.max() + dy, 90.0)
    return rectangle(lon.min() - dx, south, lon.max() + dx, north)


def _step(values: NDArray[Any]) -> float:
    return float(np.median(np.abs(np.diff(values)))) if len(values) > 1 else 0.0


def of_points(lat: NDArray[Any], lon: NDArray[Any]) -> shapely.Geometry | None:
    """Return the outline of points: along their track, else their hull, which may be smaller."""
    lat, lon = _valid_positions(lat, lon)
    if len(lat) == 0:
        return None
    some = np.unique(np.linspace(0, len(lat) - 1, min(len(lat), TRACK_POINTS)).astype(int))
    outline = None if _is_scattered(lat[some], lon[some]) else _of_pieces(lat, lon)
    if outline is not None:
        # Those of a grid follow one another row by row.
        hull = shapely.buffer(_hull(lat[some], lon[some]), 2 * TRACK_WIDTH)
        outline = None if outline.area > hull.area else outline
    return _hull(lat, lon) if outline is None else outline


def _valid_positions(lat: NDArray[Any], lon: NDArray[Any]) -> Positions:
    lat, lon = clean_positions(lat.ravel(), lon.ravel())
    valid = np.isfinite(lat)
    return lat[valid], lon[valid]


def _is_scattered(lat: NDArray[Any], lon: NDArray[Any]) -> bool:
    """Whether points follow one another in no direction, as random ones do."""
    points = unit_vectors(lat, lon)[np.isfinite(lat)]
    steps = np.diff(points, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    steps = steps[lengths > 0] / lengths[lengths > 0, None]
    return len(steps) > 2 and bool((steps[1:] * steps[:-1]).sum(axis=1).mean() <= 0)


def _of_pieces(lat: NDArray[Any], lon: NDArray[Any]) -> shapely.Geometry | None:
    """Return the outline of a track that gaps may part, None where it has too many vertices."""
    steps = _steps(lat, lon)
    reach = max(JUMP * float(np.median(steps)), 1.0) if len(steps) else 1.0
    gaps = np.flatnonzero(steps > reach) + 1
    if len(gaps) >= TRACK_PIECES:
        gaps = gaps[:0]
    pieces = list(zip(np.split(lat, gaps), np.split(lon, gaps), strict=True))
    for tolerance in TRACK_TOLERANCES:
        lines = [_line(*piece, tolerance) for piece in pieces]
        if shapely.get_num_coordinates(lines).sum() <= TRACK_VERTICES:
            width = TRACK_WIDTH + tolerance
            areas = shapely.buffer(lines, width, cap_style="square", join_style="mitre")
            return _hold(on_the_map(shapely.union_all(areas)), lat, lon, width)
    return None


def _line(lat: NDArray[Any], lon: NDArray[Any], tolerance: float) -> shapely.Geometry:
    """Return a line along a track, or its one point, right to `tolerance` on the map."""
    some = np.unique(np.linspace(0, len(lat) - 1, min(len(lat), TRACK_POINTS)).astype(int))
    points = _unwrap(np.column_stack([lon, lat])[some])
    points = points[np.append(True, (np.diff(points, axis=0) != 0).any(axis=1))]
    if len(points) == 1:
        return shapely.Point(points[0])
    return shapely.simplify(shapely.LineString(points), tolerance, preserve_topology=False)


def of_track(lat: NDArray[Any], lon: NDArray[Any]) -> shapely.Geometry | None:
    """Return a narrow polygon along a track of points."""
    lat, lon = _valid_positions(lat, lon)
    if len(lat) == 0:
        return None
    line = _line(lat, lon, TRACK_WIDTH / 5)
    return on_the_map(line.buffer(TRACK_WIDTH, quad_segs=1))


def of_cloud(lat: NDArray[Any], lon: NDArray[Any]) -> shapely.Geometry | None:
    """Return the hull of points on the map, across the antimeridian where that is smaller."""
    lat, lon = _valid_positions(lat, lon)
    return _hull(lat, lon) if len(lat) else None


def _hull(lat: NDArray[Any], lon: NDArray[Any]) -> shapely.Geometry:
    west, _ = longitude_arc(lon)
    points = np.column_stack([(lon - west + TOLERANCE) % 360 + west - TOLERANCE, lat])
    blocks = np.array_split(points, -(-len(points) // CLOUD_POINTS))
    lines = (shapely.linestrings(np.concatenate([block, block[:1]])) for block in blocks)
    hull = shapely.geometrycollections([line.convex_hull for line in lines]).convex_hull
    # Points along a line have a hull of next to no width.
    width = HULL_GROWTH * hull.area / hull.length if hull.area > SLIVER else TRACK_WIDTH
    return on_the_map(hull.buffer(width, quad_segs=1))


def of_swath(lat: NDArray[Any], lon: NDArray[Any]) -> shapely.Geometry | None:
    """Return the outline of a swath, half a pixel around the centres, NaN where there is none.

    It is put together of strips between some of its rows, each of which is small on the globe:
    a whole orbit has no outline that is one ring on a map. Either axis may be the longer one.
    """
    lat, lon = clean_positions(lat, lon)
    row, column = (length // 2 for length in lat.shape)
    if _is_scattered(lat[:, column], lon[:, column]) or _is_scattered(lat[row], lon[row]):
        return of_cloud(lat, lon)
    if _steps(lat[:, column], lon[:, column]).sum() < _steps(lat[row], lon[row]).sum():
        lat, lon = lat.T, lon.T
    valid = np.isfinite(lat)
    rows = np.flatnonzero(valid.any(axis=1))
    if len(rows) == 0:
        return None
    half = _half_a_pixel(lat, lon, valid)
    ribs = list(_ribs(lat, lon, valid, rows, half / 2))
    rings = (np.concatenate([rib, after[::-1], rib[:1]]) for rib, after in pairwise(ribs))
    strips = [strip for strip in map(of_ring, rings) if strip is not None]
    if not strips:
        return of_points(lat[valid], lon[valid])
    outline = shapely.union_all(strips).buffer(half, quad_segs=2)
    outline = on_the_map(make_valid(outline.simplify(half / 4)))
    return _hold(outline, lat[valid], lon[valid], half)


def _hold(
    outline: shapely.Geometry, lat: NDArray[Any], lon: NDArray[Any], width: float
) -> shapely.Geometry:
    """Return an outline with the cells, of half a `width`, of the points that it doesn't hold."""
    shapely.prepare(outline)
    lon = wrap_longitudes(lon)
    outside = ~shapely.intersects_xy(outline, lon, lat)
    if not outside.any():
        return outline
    lat, lon = lat[outside], lon[outside]
    if len(lat) > MOST_OUTSIDE:
        return shapely.union_all([outline, _hull(lat, lon)])
    across = np.minimum(width / np.maximum(np.cos(np.radians(lat)), SLIVER), 90)
    cells = shapely.box(lon - across, lat - width, lon + across, lat + width)
    return on_the_map(shapely.union_all([outline, *cells]))


def _steps(lat: NDArray[Any], lon: NDArray[Any]) -> NDArray[Any]:
    """Return the distances between valid points, in degrees on the globe."""
    valid = np.isfinite(lat)
    chords = np.linalg.norm(np.diff(unit_vectors(lat[valid], lon[valid]), axis=0), axis=1)
    return np.degrees(2 * np.arcsin(np.clip(chords / 2, 0, 1)))


def _half_a_pixel(lat: NDArray[Any], lon: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """Return half the distance between neighbours, in degrees, within reason."""
    row = int(np.argmax(valid.sum(axis=1)))
    column = int(np.argmax(valid.sum(axis=0)))
    steps = _steps(lat[:, column], lon[:, column]), _steps(lat[row], lon[row])
    halves = [float(np.median(lengths)) / 2 for lengths in steps if len(lengths)]
    return min(max([0.01, *halves]), 0.5)


def make_valid(shape: shapely.Geometry) -> shapely.Geometry:
    """Return a shape with all that its rings go around, also what two of them do."""
    parts = shapely.get_parts(shapely.get_parts(shape))
    return shapely.union_all(shapely.make_valid(parts, method="structure", keep_collapsed=True))


def on_the_map(shape: shapely.Geometry) -> shapely.Geometry:
    """Return the polygons of a shape, cut at the map's edges."""
    inside = shapely.intersection(wrap_geometry(shape), GLOBE)
    areas = [area for area in shapely.get_parts(inside) if area.geom_type == "Polygon"]
    return areas[0] if len(areas) == 1 else shapely.MultiPolygon(areas)


def _ribs(
    lat: NDArray[Any],
    lon: NDArray[Any],
    valid: NDArray[np.bool_],
    rows: NDArray[np.intp],
    tolerance: float,
) -> Iterator[NDArray[Any]]:
    """Yield points of some rows as (longitude, latitude), the first and last row among them.

    They are those that both edges of the swath need to be right to `tolerance` on the map.
    """
    edges = valid[rows].argmax(axis=1), valid.shape[1] - 1 - valid[rows, ::-1].argmax(axis=1)
    evenly = np.linspace(0, len(rows) - 1, min(len(rows), RIBS)).astype(int)
    bends = [_bends(lat[rows, edge], lon[rows, edge], tolerance) for edge in edges]
    for row in rows[np.unique(np.concatenate([evenly, *bends]))]:
        columns = np.flatnonzero(valid[row])
        points = np.linspace(0, len(columns) - 1, min(len(columns), POINTS)).astype(int)
        if row in (rows[0], rows[-1]):
            bent = _bends(lat[row, columns], lon[row, columns], tolerance)
            points = np.concatenate([points, bent])
        at = columns[np.unique(points)]
        yield np.column_stack([lon[row, at], lat[row, at]])


def _bends(lat: NDArray[Any], lon: NDArray[Any], tolerance: float) -> NDArray[np.intp]:
    """Return the points of a line that it needs to be right to `tolerance` on the map."""
    line = np.column_stack([np.unwrap(lon, period=360), lat, np.arange(len(lat))])
    if len(line) < 3:
        return np.arange(len(line))
    while True:
        simple = shapely.simplify(shapely.LineString(line), tolerance, preserve_topology=False)
        vertices = shapely.get_coordinates(simple, include_z=True)
        if len(vertices) <= MOST_RIBS:
            return np.asarray(vertices[:, 2], dtype=np.intp)
        tolerance *= 2


def of_ring(points: NDArray[Any]) -> shapely.Geometry | None:
    """Return a ring as polygons that are cut where the map is; None where it is a line.

    Its longitudes and latitudes are of shape (n, 2), the first point again at the end. No side is
    longer than half a turn. A ring around a pole has the nearer pole in it.
    """
    ring = _unwrap(points)
    if abs(ring[-1, 0] - ring[0, 0]) > 180:  # it goes around a pole
        cap = math.copysign(90, ring[:, 1].mean())
        # From where it is nearest to the pole nothing of it is in between.
        nearest = int(np.abs(ring[:-1, 1] - cap).argmin())
        ring = _unwrap(np.concatenate([points[nearest:-1], points[: nearest + 1]]))
        ring = np.concatenate([ring, [(ring[-1, 0], cap), (ring[0, 0], cap)]])
    polygon = shapely.Polygon(ring)
    if polygon.area < 1e-12:
        return None
    return wrap_geometry(make_valid(polygon))


def _unwrap(points: NDArray[Any]) -> NDArray[Any]:
    """Return points with longitudes that never jump by more than half a turn."""
    longitudes = np.unwrap(points[:, 0], period=360)
    return np.column_stack([longitudes, points[:, 1]])


def clean_positions(lat: NDArray[Any], lon: NDArray[Any]) -> Positions:
    """Return positions to 1e-7°, those that aren't on the globe as NaN.

    GEOS never ends at some numbers such as 1e-310. These are memory that wasn't written, as are
    positions that are all 0, and several of them far from all others. Where most are off the globe,
    and not by a few fill values, they are numbers of another scale.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        valid = (np.abs(lat) <= 90 + TOLERANCE) & (np.abs(lon) <= FARTHEST_LONGITUDE)
        tiny = [(values != 0) & (np.abs(values) < TINY) for values in (lat, lon)]
        unwritten = (tiny[0] | tiny[1]) & valid
        lat, lon = np.clip(np.round(lat, 7), -90, 90), np.round(lon, 7)
        zero = valid & (lat == 0) & (lon == 0)
        is_near = valid & ~zero & (np.maximum(np.abs(lat), np.abs(lon)) < FAR)
    if unwritten.sum() > UNWRITTEN * valid.sum() or zero.sum() == valid.sum():
        valid = np.zeros_like(valid)
    elif zero.sum() > 1 and not is_near.any():
        valid &= ~zero
    beyond = np.isfinite(lat) & np.isfinite(lon) & ~valid
    if beyond.sum() > valid.sum() and len(np.unique(lon[beyond][:MOST_FILLS])) > MOST_FILLS / 4:
        valid = np.zeros_like(valid)
    return np.where(valid, lat, np.nan), np.where(valid, lon, np.nan)


def wrap_longitudes(lon: NDArray[Any]) -> NDArray[np.float64]:
    """Return longitudes within ±180°; those that are stay as they are to the bit."""
    return np.where((lon >= -180) & (lon <= 180), lon, (lon + 180) % 360 - 180)


def of_grid(grid: Georeference) -> shapely.Geometry | None:
    """Return the outline of a grid's cells, None where they all lie off the globe.

    Where its edge lies off the globe, as around the disk that a geostationary satellite sees, the
    outline is where the globe ends. The edge of a grid that covers more than a hemisphere, or the
    globe up to its poles, doesn't say on which of its sides the cells lie: if it doesn't hold
    those, their latitudes all around are the outline.
    """
    assert grid.crs is not None
    assert grid.transform is not None
    height, width = grid.shape
    if _is_in_degrees(grid.crs) and grid.transform.b == grid.transform.d == 0:
        # A parallel is a straight line on the map, and not the shortest way.
        corners = grid.transform @ (0, 0), grid.transform @ (width, height)
        (west, east), (south, north) = map(sorted, zip(*corners, strict=True))
        return rectangle(west, max(south, -90.0), east, min(north, 90.0))
    steps = (np.arange(SIDE) + 0.5) / SIDE
    columns, rows = np.meshgrid(width * steps, height * steps)
    lat, lon = grid.to_degrees(columns, rows)
    on_globe = np.isfinite(lat)
    step = max(largest_difference(lat, axis) for axis in (0, 1)) if on_globe.any() else 0.0
    edge = grid.to_degrees(*_around(grid, CELLS, 0.5))
    edge_lat, edge_lon = (values[np.isfinite(edge[0])] for values in edge)
    inner = on_globe if on_globe.any() else np.ones_like(on_globe)
    ring = _edge_on_globe(grid, columns[inner].mean(), rows[inner].mean())
    outline = of_ring(np.concatenate([ring, ring[:1]])) if len(ring) > 2 else None
    if outline is not None:
        # Where the globe ends at the antimeridian, rounding leaves a sliver on its other side.
        pieces = shapely.get_parts(outline)
        outline = shapely.union_all(pieces[shapely.area(pieces) > SLIVER * outline.area])
        held = shapely.contains_xy(outline, (lon[on_globe] + 180) % 360 - 180, lat[on_globe])
        if not on_globe.any():
            return outline
        if held.mean() > MIN_HELD:
            # Between the points of its edge the outline may cut cells off.
            outline = _hold(outline, lat[on_globe], lon[on_globe], step / 2)
            return _hold(outline, edge_lat, edge_lon, TOLERANCE)
    if not on_globe.any():
        return None
    latitudes = np.concatenate([lat[on_globe], edge_lat])
    south, north = latitudes.min() - step, latitudes.max() + step
    return shapely.box(-180, max(south, -90.0), 180, min(north, 90.0))


def _is_in_degrees(crs: CRS) -> bool:
    """Whether a CRS's coordinates are longitudes and latitudes in degrees, unrotated."""
    return bool(
        crs.geographic
        and crs.epsg in (None, 4326)
        and not crs.proj.is_derived
        and not has_other_meridian(crs)
        and all(axis.unit_name == "degree" for axis in crs.proj.axis_info)
    )


def _around(grid: Georeference, count: int, inset: float = 0.0) -> Positions:
    """Return columns and rows around a grid, so many a side, so far within its edge."""
    height, width = grid.shape
    ahead = np.linspace(0, 1, count, endpoint=False)
    back, start, end = 1 - ahead, np.zeros(count), np.ones(count)
    columns = inset + (width - 2 * inset) * np.concatenate([start, ahead, end, back])
    return columns, inset + (height - 2 * inset) * np.concatenate([ahead, end, back, start])


def _edge_on_globe(grid: Georeference, column: float, row: float) -> NDArray[np.float64]:
    """Return longitudes and latitudes around a grid, of shape (n, 2).

    Points off the globe are moved towards the middle of its part of the grid, which is convex.
    """
    columns, rows = _around(grid, EDGE)

    def positions(fraction: NDArray[np.float64]) -> Positions:
        return grid.to_degrees(
            column + fraction * (columns - column), row + fraction * (rows - row)
        )

    low, high = np.zeros(len(columns)), np.ones(len(columns))
    lat, lon = grid.to_degrees(columns, rows)
    outer = np.isfinite(lat)
    if not outer.all():
        for _ in range(BISECTIONS):
            fraction = (low + high) / 2
            on_globe = np.isfinite(positions(fraction)[0])
            low, high = np.where(on_globe, fraction, low), np.where(on_globe, high, fraction)
        lat, lon = positions(np.where(outer, 1.0, low))
    return np.column_stack([lon, lat])[np.isfinite(lat)]
