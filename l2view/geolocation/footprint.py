"""A granule's footprint on the globe: what it declares, checked with the cells that it has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import shapely
from odc.geo import CRS

from l2view.arrays.cf import read_floats
from l2view.errors import IngestError
from l2view.geolocation.cell_outlines import (
    CELLS,
    TOLERANCE,
    TRACK_WIDTH,
    clean_positions,
    make_valid,
    of_axes,
    of_cloud,
    of_grid,
    of_points,
    of_ring,
    of_swath,
    on_the_map,
    wrap_longitudes,
)
from l2view.geolocation.crs import geokeys_crs, to_degrees
from l2view.geolocation.geometries import (
    GEOMETRY_ERRORS,
    POLE_MARGIN,
    geometry_reason,
    parse_geometry,
)
from l2view.geolocation.globe import GLOBE, rectangle
from l2view.geolocation.granule import Georeference, LocatedGranule, Positions
from l2view.geolocation.simplification import simplify_outward, sphere_area
from l2view.geolocation.transforms import ground_points
from l2view.regrid.projection import longitudes_around
from l2view.text import join_names

BOUNDS = (
    ("geospatiallonmin", "geospatiallatmin", "geospatiallonmax", "geospatiallatmax"),
    ("westernmostlongitude", "southernmostlatitude",
     "easternmostlongitude", "northernmostlatitude"),
    ("westboundingcoordinate", "southboundingcoordinate",
     "eastboundingcoordinate", "northboundingcoordinate"),
    ("westboundlongitude", "southboundlatitude", "eastboundlongitude", "northboundlatitude"),
    ("leftlongitude", "lowerlatitude", "rightlongitude", "upperlatitude"),
)  # fmt: skip
"""Attributes for west, south, east and north, in degrees; by `fold_name`."""

STATION = (("longitude", "latitude"), ("lon", "lat"))
"""Attributes of an instrument that stands somewhere, as a radar; by `fold_name`."""

CHECKED = 2**18
"""The most cells that are read although bounds are declared."""

SAMPLED = 2**22  # the most cells of a chunk that declared bounds are checked with
MOST_CELLS = 2**24  # the most cells of a granule's smaller pairs that its outline is taken from
NEAR_SEAM = 0.5  # how near to ±180° or ±90° bounds are suspect, in degrees
WIDEST = 350.0  # the width in degrees from which bounds are
TOLERATED = 0.0101  # the part by which a footprint is larger than its outline without a note
THINNEST = 1e-3  # the width in degrees below which a rectangle is none


def footprint_of(
    granule: LocatedGranule, descriptions: Iterable[Mapping[str, Any]] = ()
) -> tuple[shapely.Geometry | None, list[str]]:
    """Return where a granule lies by few vertices, None where nothing says it, and notes.

    Its latitudes and longitudes say it, unless they have many cells and agree with what is
    declared; then its grids, what is declared, a single place. The descriptions are those of its
    file, by names as `fold_name` gives them.
    """
    outline, notes = _outline(granule, list(descriptions))
    if outline is None:
        return None, notes
    simple = simplify_outward(outline)
    growth = sphere_area(simple) / sphere_area(outline) - 1
    if growth > TOLERATED:
        notes += [f"its footprint of few vertices is {growth:.0%} larger than where its cells lie"]
    return simple, notes


def _outline(
    granule: LocatedGranule, descriptions: Sequence[Mapping[str, Any]]
) -> tuple[shapely.Geometry | None, list[str]]:
    declared, is_suspect = _declared(granule, descriptions)
    pairs = sorted(granule.pairs(), key=lambda pair: math.prod(pair.shape))
    # Of a grid there are only its axes to read.
    cells = sum(granule.arrays[path].size for pair in pairs for path in pair.coordinates or ()) / 2
    if declared is None or is_suspect or cells <= CHECKED or not _agrees(granule, pairs, declared):
        outline, notes = _of_pairs(granule, pairs)
        if outline is not None:  # stations may stand beside an image
            images = of_grids(granule, with_cells=False)
            outline = outline if images is None else shapely.union_all([outline, images])
            return outline, notes
    grids = None if pairs and not is_suspect else of_grids(granule)
    stations = (of_points(*point) for point in (*granule.points(), *_stations(descriptions)))
    points = None if grids is not None else of_ground_points(granule)
    return grids or points or declared or next(filter(None, stations), None), []


def _stations(descriptions: Iterable[Mapping[str, Any]]) -> Iterator[Positions]:
    """Yield the latitude and longitude of each place that attributes name, but for a grid's."""
    for attributes in descriptions:
        for names in STATION if "projdef" not in attributes else ():
            with suppress(KeyError, TypeError, ValueError):
                lon, lat = (np.array(attributes[n], dtype=float).reshape(1) for n in names)
                yield lat, lon


def _of_pairs(
    granule: LocatedGranule, pairs: Sequence[Georeference]
) -> tuple[shapely.Geometry | None, list[str]]:
    """Return the outline of the latitudes and longitudes, and a note on those with many cells.

    The pairs are sorted by their cells.
    """
    outlines: list[shapely.Geometry] = []
    cells = 0
    for number, pair in enumerate(pairs):
        cells += math.prod(pair.shape)
        if outlines and cells > MOST_CELLS:
            names = join_names([pair.path for pair in pairs[number:]])
            return shapely.union_all(outlines), [f"its place is taken without the cells of {names}"]
        outline = of_coordinates(granule, pair)
        if outline is not None and not outline.is_empty:
            outlines.append(outline)
    return shapely.union_all(outlines) if outlines else None, []


def of_grids(granule: LocatedGranule, *, with_cells: bool = True) -> shapely.Geometry | None:
    """Return the outline of all of a granule's grids, None where it has none.

    Those that have no transform are left out without `with_cells`.
    """
    grids: dict[tuple[Any, ...], Georeference] = {}
    for image in granule.images():
        if image.transform is not None:  # many images of a granule share one grid
            corners = (*(image.transform @ (0, 0)), *(image.transform @ image.shape[::-1]))
            grids.setdefault((image.crs, *np.round(corners, 6)), image)
        elif with_cells and image.centres is not None:
            grids.setdefault((id(image.centres),), image)
    outlines = [
        of_coordinates(granule, grid) if grid.transform is None else of_grid(grid)
        for grid in grids.values()
    ]
    valid = [outline for outline in outlines if outline is not None]
    return shapely.union_all(valid) if valid else None


def of_ground_points(granule: LocatedGranule) -> shapely.Geometry | None:
    """Return the hull of the ground control points of a granule's largest image that has some.

    The image's corners belong to it, as far from the nearest points as a plane tells.
    """
    images = sorted(granule.table.arrays.values(), key=lambda array: -array.shapes.prod())
    for image in images:
        attributes = image.variants[0]["attributes"]
        points, declared = ground_points(attributes), geokeys_crs(attributes)
        if points is None or declared is None:
            continue
        crs, pixels, places = CRS(declared), points[:, :2], points[:, 2:]
        if crs.geographic:
            places[:, 0] = longitudes_around(places[:, 0], places[0, 0])
        corners = np.array([(0, 0), (0, 1), (1, 1), (1, 0)]) * image.shapes[0, [-1, -2]]
        nearest = np.abs(corners[:, None] - pixels).max(axis=2).argmin(axis=1)
        plane, *_ = np.linalg.lstsq(np.column_stack([pixels, np.ones(len(pixels))]), places)
        beyond = places[nearest] + (corners - pixels[nearest]) @ plane[:2]
        x, y = np.concatenate([places, beyond]).T
        outline = of_cloud(*to_degrees(x, y, crs))
        if outline is not None:
            return outline
    return None


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
            polygon = of_position_list(attributes.get("gml:posList"))
            if polygon is not None:
                return polygon, False
    for attributes in descriptions:
        text = attributes.get("geospatialbounds", attributes.get("boundingpolygon"))
        polygon = _of_text(text, None if is_suspect else box)
        if polygon is not None:
            return polygon, False
    return box, is_suspect or box is None


def of_position_list(text: Any) -> shapely.Geometry | None:
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
        lat, lon = clean_positions(*(read_floats(array, chunk) for array in arrays))
        valid = np.isfinite(lat)
        inside = shapely.intersects_xy(around, wrap_longitudes(lon[valid]), lat[valid])
        if inside.size and inside.mean() < 0.99:
            return False
    return True


def on_the_globe(footprint: Any) -> shapely.Geometry:
    """Return a footprint as fields hold it: polygons within ±180° and ±90°.

    It is in degrees: what `parse_geometry` takes. Points and
    lines get a width, of `TRACK_WIDTH` to each side; latitudes up to `POLE_MARGIN` beyond a pole
    are the pole's. An IngestError is raised where it is no geometry, empty, or further beyond.
    """
    try:
        shape = shapely.force_2d(parse_geometry(footprint))
    except GEOMETRY_ERRORS as error:
        raise IngestError(
            'the field "bbox" is no geometry, that is west,south,east,north in degrees, WKT, '
            f"GeoJSON, WKB or shapely's: {geometry_reason(error)}"
        ) from error
    coordinates = shapely.get_coordinates(shape)
    if len(coordinates) == 0 or not np.isfinite(coordinates).all():
        raise IngestError('the field "bbox" is empty, or has a coordinate that is no number')
    if np.abs(coordinates[:, 1]).max() > 90 + POLE_MARGIN:
        raise IngestError('the field "bbox" has a latitude beyond 90°; is it longitude, latitude?')
    if np.abs(coordinates[:, 1]).max() > 90:
        shape = shapely.transform(shape, lambda at: np.clip(at, (-np.inf, -90), (np.inf, 90)))
    if not shapely.is_valid(shape):
        shape = make_valid(shape)
    is_area = all(geometry.geom_type == "Polygon" for geometry in shapely.get_parts(shape))
    if is_area and np.abs(coordinates[:, 0]).max() <= 180:
        return shape
    areas = [
        geometry if geometry.area > 0 else geometry.buffer(TRACK_WIDTH, quad_segs=1)
        for geometry in shapely.get_parts(shapely.get_parts(shape))
    ]
    return on_the_map(shapely.union_all(areas))


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


def of_coordinates(granule: LocatedGranule, pair: Georeference) -> shapely.Geometry | None:
    """Return the outline of latitudes and longitudes, None where none is valid."""
    some = [np.unique(np.linspace(0, n - 1, min(n, CELLS)).astype(int)) for n in pair.shape]
    lat, lon = granule.cells(pair, (some[0], some[-1]))
    if len(pair.dimensions) == 1:
        return of_points(lat, lon)
    if lat.ndim == 1:
        return of_axes(lat, lon)
    # TROPOMI's, for one, begin with a time of length 1.
    rows = (-1, lat.shape[-1])
    return of_swath(lat.reshape(rows), lon.reshape(rows))
