"""A granule's footprint on the globe, as a polygon in EPSG:4326.

What crosses the antimeridian or holds a pole is cut as GeoJSON (RFC 7946, 3.1.9) asks for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
import zarr
from numpy.typing import NDArray
from odc.geo import CRS

from l2view.arrays.cf import read_floats
from l2view.errors import IngestError
from l2view.geolocation.crs import has_other_meridian
from l2view.geolocation.geometries import (
    GEOMETRY_ERRORS,
    POLE_MARGIN,
    bbox_corners,
    parse_geometry,
)
from l2view.geolocation.globe import wrap_geometry
from l2view.geolocation.granule import Georeference, LocatedGranule, Positions
from l2view.geolocation.outlines import simplify_outward, sphere_area
from l2view.regrid.projection import largest_difference, longitude_arc, unit_vectors
from l2view.text import first_line

BOUNDS = (
    ("geospatial_lon_min", "geospatial_lat_min", "geospatial_lon_max", "geospatial_lat_max"),
    ("westernmost_longitude", "southernmost_latitude",
     "easternmost_longitude", "northernmost_latitude"),
    ("westboundingcoordinate", "southboundingcoordinate",
     "eastboundingcoordinate", "northboundingcoordinate"),
)  # fmt: skip
"""Attributes for west, south, east and north, in degrees; in lower case."""

GLOBE = shapely.box(-180, -90, 180, 90)

CHECKED = 2**18
"""The most cells that are read although bounds are declared."""

SAMPLED = 2**22  # the most cells of a chunk that declared bounds are checked with
MOST_CELLS = 2**24  # the most cells of a granule's smaller pairs that its outline is taken from
NEAR_SEAM = 0.5  # how near to ±180° or ±90° bounds are suspect, in degrees
WIDEST = 350.0  # the width in degrees from which bounds are
THINNEST = 1e-3  # the width in degrees below which a rectangle is none
TOLERANCE = 0.01
"""By how many degrees latitudes may be beyond the poles."""

RIBS = 48  # the rows of a swath that its outline is taken from where its edges are straight
MOST_RIBS = 400  # the most rows that each edge adds to them
POINTS = 9  # the most points of a row that it is taken from
SIDE = 64  # the points of each side of a grid that its outline is taken from

MIN_HELD = 0.9
"""The share of the cells within a grid that its outline holds, if it is the right one."""

BBOX_TEXT = re.compile(r"[-+\d.eE\s,\[\]]+")
"""A bbox as a text: only numbers."""

MOST_OUTSIDE = 5000  # the most cells that are added to an outline one by one
TINY = 1e-30  # the number below which none is a coordinate
UNWRITTEN = 0.01  # the part of such numbers from which an array isn't written
SLIVER = 1e-6  # the part of an outline's area that is none
BISECTIONS = 40  # how often the way to the edge of the globe is halved
TRACK_WIDTH = 0.05  # half the width in degrees that a track of single points is given
TRACK_TOLERANCES = (0.01, 0.02, 0.05, 0.1, 0.2)  # by how much its outline may be off, in degrees
TRACK_VERTICES = 56  # the most vertices of a track's line
TRACK_PIECES = 8  # into how many pieces the gaps of a track part it
TRACK_POINTS = 4096  # the points by which a track is told from a cloud
JUMP = 10.0  # how many times as far as its neighbours' a step is where a track is parted

HULL_GROWTH = 0.002
"""The part by which the hull of a cloud of points is larger than it, so that it holds them."""


def harvest_footprint(
    group: zarr.Group, url: str, descriptions: Iterable[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Return the field ``bbox`` as WKB, nothing where the granule doesn't say where it is.

    The descriptions have lower-case names; they are those of the group by default.
    """
    if descriptions is None:
        descriptions = [{name.lower(): value for name, value in group.attrs.items()}]
    shape = of_granule(LocatedGranule(group), descriptions)
    return {} if shape is None else {"bbox": shapely.to_wkb(shape)}


def of_granule(
    granule: LocatedGranule, descriptions: Iterable[Mapping[str, Any]] = ()
) -> shapely.Geometry | None:
    """Return where a granule lies by few vertices, None where nothing says it.

    Its latitudes and longitudes say it, unless they have many cells and agree with what is
    declared; then its grids, what is declared, a single place.
    """
    outline = _outline(granule, list(descriptions))
    return None if outline is None else simplify_outward(outline)


def _outline(
    granule: LocatedGranule, descriptions: Sequence[Mapping[str, Any]]
) -> shapely.Geometry | None:
    declared, is_suspect = _declared(granule, descriptions)
    pairs = sorted(granule.pairs(), key=lambda pair: math.prod(pair.shape))
    cells = sum(math.prod(pair.shape) for pair in pairs)
    if declared is None or is_suspect or cells <= CHECKED or not _agrees(granule, pairs, declared):
        outline = _of_pairs(granule, pairs)
        if outline is not None:
            return outline
    grids = None if pairs and not is_suspect else of_grids(granule)
    stations = (of_points(*point) for point in granule.points())
    return grids or declared or next(filter(None, stations), None)


def _of_pairs(granule: LocatedGranule, pairs: Sequence[Georeference]) -> shapely.Geometry | None:
    """Return the outline of all latitudes and longitudes; of the smallest where they are many."""
    outlines: list[shapely.Geometry] = []
    cells = 0
    for pair in pairs:
        cells += math.prod(pair.shape)
        if outlines and cells > MOST_CELLS:
            break
        outline = of_coordinates(granule, pair)
        if outline is not None and not outline.is_empty:
            outlines.append(outline)
    return shapely.union_all(outlines) if outlines else None


def of_grids(granule: LocatedGranule) -> shapely.Geometry | None:
    """Return the outline of all of a granule's grids, None where it has none."""
    grids: dict[tuple[Any, ...], Georeference] = {}
    for image in granule.images():
        if image.transform is not None:  # many images of a granule share one grid
            corners = (*(image.transform @ (0, 0)), *(image.transform @ image.shape[::-1]))
            grids.setdefault((image.crs, *np.round(corners, 6)), image)
        elif image.cells is not None:
            grids[image.path,] = image
    outlines = [
        of_coordinates(granule, grid) if grid.transform is None else of_grid(grid)
        for grid in grids.values()
    ]
    valid = [outline for outline in outlines if outline is not None]
    return shapely.union_all(valid) if valid else None


def _declared(
    granule: LocatedGranule, descriptions: Sequence[Mapping[str, Any]]
) -> tuple[shapely.Geometry | None, bool]:
    """Return the place that attributes declare, and whether it is suspect."""
    box, is_suspect = None, False
    for attributes in descriptions:
        bounds = bounds_of(attributes)
        if bounds is not None:
            west, south, east, north = bounds
            edges = np.abs(np.abs([west, east, 2 * south, 2 * north]) - 180)
            is_suspect = bool(edges.min() < NEAR_SEAM) or (east - west) % 360 > WIDEST
            box = of_bounds(attributes)
            break
    for group in granule.table.groups.values():
        for attributes in group.variants:
            polygon = _of_position_list(attributes.get("gml:posList"))
            if polygon is not None:
                return polygon, False
    for attributes in descriptions:
        polygon = _of_text(attributes.get("geospatial_bounds"), None if is_suspect else box)
        if polygon is not None:
            return polygon, False
    return box, is_suspect or box is None


def _of_position_list(text: Any) -> shapely.Geometry | None:
    """Return the polygon of GML's latitudes and longitudes (OGC 07-036, 10.1.4.2)."""
    try:
        points = np.array(str(text).split(), dtype=float)
    except ValueError:
        return None
    if len(points) < 8 or len(points) % 2:
        return None
    outline = of_ring(points.reshape(-1, 2)[:, ::-1])
    # The ring around a swath over both poles has none of them within it on the map.
    if outline is not None and sphere_area(outline) > sphere_area(GLOBE) / 2:
        outline = GLOBE.difference(outline)
    return outline


def _of_text(text: Any, box: shapely.Geometry | None) -> shapely.Geometry | None:
    """Return the polygon of ``geospatial_bounds`` (ACDD 1.3), None where its axes aren't clear.

    Latitudes come first by the convention, and last by the habits of many: it is to fit the
    declared rectangle, or to have values that are no latitudes.
    """
    try:
        polygon = shapely.from_wkt(text) if isinstance(text, str) else None
    except shapely.errors.ShapelyError:
        return None
    if polygon is None or polygon.geom_type != "Polygon" or polygon.is_empty:
        return None
    points = shapely.get_coordinates(polygon.exterior)
    orders = [p for p in (points, points[:, ::-1]) if np.abs(p[:, 1]).max() <= 90 + TOLERANCE]
    shapes = [shape for shape in map(of_ring, orders) if shape is not None]
    if box is not None:
        return next((s for s in shapes if np.allclose(s.bounds, box.bounds, atol=1)), None)
    return shapes[0] if len(shapes) == 1 else None


def _agrees(
    granule: LocatedGranule, pairs: Sequence[Georeference], declared: shapely.Geometry
) -> bool:
    """Whether the middle chunk of each pair lies where it is declared."""
    around = declared.buffer(0.1)
    for pair in pairs:
        assert pair.coordinates is not None
        arrays = [granule.arrays[path] for path in pair.coordinates]
        if arrays[0].shape != arrays[1].shape or arrays[0].chunks != arrays[1].chunks:
            continue
        if math.prod(arrays[0].chunks) > SAMPLED:
            continue
        chunk = tuple(
            slice(start := length // 2 // step * step, start + step)
            for length, step in zip(arrays[0].shape, arrays[0].chunks, strict=True)
        )
        lat, lon = _clean(*(read_floats(array, chunk) for array in arrays))
        valid = np.isfinite(lat)
        inside = shapely.intersects_xy(around, _wrap(lon[valid]), lat[valid])
        if inside.size and inside.mean() < 0.99:
            return False
    return True


def on_the_globe(footprint: Any) -> shapely.Geometry:
    """Return a footprint as fields hold it: polygons within ±180° and ±90°.

    It is in degrees: a bbox of numbers or as a text, or what `parse_geometry` takes. Points and
    lines get a width, of `TRACK_WIDTH` to each side; latitudes up to `POLE_MARGIN` beyond a pole
    are the pole's. An IngestError is raised where it is no geometry, empty, or further beyond.
    """
    try:
        shape = shapely.force_2d(_parse_footprint(footprint))
    except GEOMETRY_ERRORS as error:
        raise IngestError(
            f'the field "bbox" is no geometry, that is (west, south, east, north), WKT, GeoJSON, '
            f"WKB or shapely's: {first_line(error)}"
        ) from error
    coordinates = shapely.get_coordinates(shape)
    if len(coordinates) == 0 or not np.isfinite(coordinates).all():
        raise IngestError('the field "bbox" is empty, or has a coordinate that is no number')
    if np.abs(coordinates[:, 1]).max() > 90 + POLE_MARGIN:
        raise IngestError('the field "bbox" has a latitude beyond 90°; is it longitude, latitude?')
    if np.abs(coordinates[:, 1]).max() > 90:
        shape = shapely.transform(shape, lambda at: np.clip(at, (-np.inf, -90), (np.inf, 90)))
    if not shapely.is_valid(shape):
        shape = shapely.make_valid(shape)
    is_area = all(geometry.geom_type == "Polygon" for geometry in shapely.get_parts(shape))
    if is_area and np.abs(coordinates[:, 0]).max() <= 180:
        return shape
    areas = [
        geometry if geometry.area > 0 else geometry.buffer(TRACK_WIDTH, quad_segs=1)
        for geometry in shapely.get_parts(shapely.get_parts(shape))
    ]
    return _on_the_map(shapely.union_all(areas))


def _parse_footprint(value: Any) -> shapely.Geometry:
    if isinstance(value, str) and BBOX_TEXT.fullmatch(value):
        value = value.strip("[] ").replace(",", " ").split()
    if isinstance(value, list | tuple | np.ndarray):
        return rectangle(*bbox_corners(value))
    return parse_geometry(value)


def bounds_of(attributes: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    """Return the west, south, east and north that attributes declare, None where they don't."""
    for names in BOUNDS:
        try:
            west, south, east, north = (float(attributes[name]) for name in names)
        except (KeyError, TypeError, ValueError):
            continue
        return west, south, east, north
    return None


def of_bounds(attributes: Mapping[str, Any]) -> shapely.Geometry | None:
    """Return the rectangle of bounds in attributes, None where there are none, or of no area."""
    west, south, east, north = bounds_of(attributes) or (0.0, 0.0, 0.0, 0.0)
    width = east - west if east - west >= WIDEST else (east - west) % 360
    is_place = all(-180 - TOLERANCE <= x <= 360 for x in (west, east)) and width >= THINNEST
    if is_place and -90 - TOLERANCE <= south <= north - THINNEST and north <= 90 + TOLERANCE:
        return rectangle(west, max(south, -90.0), east, min(north, 90.0))
    return None


def rectangle(west: float, south: float, east: float, north: float) -> shapely.Geometry:
    """Return a rectangle; west > east, or east > 180, crosses the antimeridian."""
    if east - west >= 360 - 1e-9:
        return shapely.box(-180, south, 180, north)
    turns = max(math.ceil((west - east) / 360), 0)
    return wrap_geometry(shapely.box(west, south, east + 360 * turns, north))


def of_coordinates(granule: LocatedGranule, pair: Georeference) -> shapely.Geometry | None:
    """Return the outline of latitudes and longitudes, None where none is valid."""
    lat, lon = granule.cells(pair)
    if len(pair.dimensions) == 1:
        return of_points(lat, lon)
    if lat.ndim == 1:
        return of_axes(lat, lon)
    # TROPOMI's, for one, begin with a time of length 1.
    rows = (-1, lat.shape[-1])
    return of_swath(lat.reshape(rows), lon.reshape(rows))


def of_axes(lat: NDArray[Any], lon: NDArray[Any]) -> shapely.Geometry | None:
    """Return the rectangle that a grid covers, with half a cell around its centres."""
    lat, lon = lat[np.isfinite(lat)], np.unwrap(lon[np.isfinite(lon)], period=360)
    if len(lat) == 0 or len(lon) == 0:
        return None
    dy, dx = (_step(values) / 2 for values in (lat, lon))
    south, north = max(lat.min() - dy, -90.0), min(lat.max() + dy, 90.0)
    return rectangle(lon.min() - dx, south, lon.max() + dx, north)


def _step(values: NDArray[Any]) -> float:
    return float(np.median(np.abs(np.diff(values)))) if len(values) > 1 else 0.0


def of_points(lat: NDArray[Any], lon: NDArray[Any]) -> shapely.Geometry | None:
    """Return the outline of points: along their track, else their hull."""
    lat, lon = _clean(lat.ravel(), lon.ravel())
    lat, lon = lat[np.isfinite(lat)], lon[np.isfinite(lat)]
    if len(lat) == 0:
        return None
    some = np.unique(np.linspace(0, len(lat) - 1, min(len(lat), TRACK_POINTS)).astype(int))
    outline = None if _is_scattered(lat[some], lon[some]) else _of_pieces(lat, lon)
    return of_cloud(lat, lon) if outline is None else outline


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
            return _hold(_on_the_map(shapely.union_all(areas)), lat, lon, width)
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
    lat, lon = _clean(lat, lon)
    lat, lon = lat[np.isfinite(lat)], lon[np.isfinite(lat)]
    if len(lat) == 0:
        return None
    line = _line(lat, lon, TRACK_WIDTH / 5)
    return _on_the_map(line.buffer(TRACK_WIDTH, quad_segs=1))


def of_cloud(lat: NDArray[Any], lon: NDArray[Any]) -> shapely.Geometry | None:
    """Return the hull of points on the map, across the antimeridian where that is smaller."""
    lat, lon = _clean(lat, lon)
    lat, lon = lat[np.isfinite(lat)], lon[np.isfinite(lat)]
    if len(lat) == 0:
        return None
    west, _ = longitude_arc(lon)
    points = np.column_stack([(lon - west + TOLERANCE) % 360 + west - TOLERANCE, lat])
    hull = shapely.MultiPoint(points).convex_hull
    width = HULL_GROWTH * hull.area / hull.length if hull.area > 0 else TRACK_WIDTH
    return _on_the_map(hull.buffer(width, quad_segs=1))


def of_swath(lat: NDArray[Any], lon: NDArray[Any]) -> shapely.Geometry | None:
    """Return the outline of a swath, half a pixel around the centres, NaN where there is none.

    It is put together of strips between some of its rows, each of which is small on the globe:
    a whole orbit has no outline that is one ring on a map. Either axis may be the longer one.
    """
    lat, lon = _clean(lat, lon)
    row, column = (length // 2 for length in lat.shape)
    if _is_scattered(lat[:, column], lon[:, column]) or _is_scattered(lat[row], lon[row]):
        return of_cloud(lat.ravel(), lon.ravel())
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
    outline = _on_the_map(shapely.make_valid(outline.simplify(half / 4)))
    return _hold(outline, lat[valid], lon[valid], half)


def _hold(
    outline: shapely.Geometry, lat: NDArray[Any], lon: NDArray[Any], width: float
) -> shapely.Geometry:
    """Return an outline with the cells, of half a `width`, of the points that it doesn't hold."""
    shapely.prepare(outline)
    lon = _wrap(lon)
    outside = ~shapely.intersects_xy(outline, lon, lat)
    if not outside.any():
        return outline
    lat, lon = lat[outside], lon[outside]
    if len(lat) > MOST_OUTSIDE:
        return shapely.union_all([outline, of_cloud(lat, lon)])
    across = np.minimum(width / np.maximum(np.cos(np.radians(lat)), SLIVER), 90)
    cells = shapely.box(lon - across, lat - width, lon + across, lat + width)
    return _on_the_map(shapely.union_all([outline, *cells]))


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


def _on_the_map(shape: shapely.Geometry) -> shapely.Geometry:
    """Return the polygons of a shape, cut at the map's edges."""
    inside = shapely.intersection(wrap_geometry(shape), shapely.box(-180, -90, 180, 90))
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
        ring = np.concatenate([ring, [(ring[-1, 0], cap), (ring[0, 0], cap)]])
    polygon = shapely.Polygon(ring)
    if polygon.area < 1e-12:
        return None
    return wrap_geometry(shapely.make_valid(polygon))


def _unwrap(points: NDArray[Any]) -> NDArray[Any]:
    """Return points with longitudes that never jump by more than half a turn."""
    longitudes = np.unwrap(points[:, 0], period=360)
    return np.column_stack([longitudes, points[:, 1]])


def _clean(lat: NDArray[Any], lon: NDArray[Any]) -> Positions:
    """Return positions to 1e-7°, those that aren't on the globe as NaN.

    GEOS never ends at some numbers such as 1e-310. These are memory that wasn't written, as are
    positions that are all 0.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        valid = (np.abs(lat) <= 90 + TOLERANCE) & (np.abs(lon) <= 360 + TOLERANCE)
        unwritten = (_is_tiny(lat) | _is_tiny(lon)) & valid
        lat, lon = np.clip(np.round(lat, 7), -90, 90), np.round(lon, 7)
    if unwritten.sum() > UNWRITTEN * valid.sum() or not (lat[valid].any() or lon[valid].any()):
        valid = np.zeros_like(valid)
    return np.where(valid, lat, np.nan), np.where(valid, lon, np.nan)


def _is_tiny(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray((values != 0) & (np.abs(values) < TINY))


def _wrap(lon: NDArray[Any]) -> NDArray[np.float64]:
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
    inner = on_globe if on_globe.any() else np.ones_like(on_globe)
    ring = _edge_on_globe(grid, columns[inner].mean(), rows[inner].mean())
    outline = of_ring(np.concatenate([ring, ring[:1]])) if len(ring) > 2 else None
    if outline is not None:
        # Where the globe ends at the antimeridian, rounding leaves a sliver on its other side.
        pieces = shapely.get_parts(outline)
        outline = shapely.union_all(pieces[shapely.area(pieces) > SLIVER * outline.area])
        held = shapely.contains_xy(outline, (lon[on_globe] + 180) % 360 - 180, lat[on_globe])
        if not on_globe.any() or held.mean() > MIN_HELD:
            return outline
    if not on_globe.any():
        return None
    step = max(largest_difference(lat, axis) for axis in (0, 1))
    south, north = np.nanmin(lat) - step, np.nanmax(lat) + step
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


def _edge_on_globe(grid: Georeference, column: float, row: float) -> NDArray[np.float64]:
    """Return longitudes and latitudes around a grid, of shape (n, 2).

    Points off the globe are moved towards the middle of its part of the grid, which is convex.
    """
    ahead = np.linspace(0, 1, SIDE, endpoint=False)
    back, start, end = 1 - ahead, np.zeros(SIDE), np.ones(SIDE)
    height, width = grid.shape
    columns = width * np.concatenate([start, ahead, end, back])
    rows = height * np.concatenate([ahead, end, back, start])

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
