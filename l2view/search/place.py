"""Places on the globe, and the footprints that meet them.

Longitude and latitude are taken as a plane, with a seam at ±180°: a place that reaches across
is cut there. Footprints are expected to be cut the same way.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from datafusion import Expr, SessionContext, literal, udf

from l2view.errors import QueryError
from l2view.geolocation.geometries import (
    GEOMETRY_ERRORS,
    bbox_corners,
    geometry_reason,
    parse_geometry,
)
from l2view.geolocation.globe import wrap_geometry
from l2view.meta.footprints import read_geometries
from l2view.meta.schema import GEOMETRIES, Field, find_field
from l2view.search.context import column

SLIGHTLY = 1e-9  # degrees by which the rectangle around a point or a line is larger than it


def geometry_field(schema: pa.Schema, field: str | None = None) -> str:
    """Return the field that holds the footprints; a `FieldError` is raised where there is none."""
    return find_field(schema, field, GEOMETRIES, "place", "geometry_field")


def corners(bbox: Any) -> tuple[float, float, float, float]:
    """Return west, south, east and north of what `bbox_corners` takes; a QueryError says why not.

    One of six numbers has heights, which no footprint has.
    """
    try:
        return bbox_corners(bbox)
    except GEOMETRY_ERRORS as error:
        raise QueryError(
            f"bbox={bbox!r} is not (west, south, east, north) in degrees: "
            f"{geometry_reason(error)}; west > east crosses the antimeridian"
        ) from error


def geometry(value: Any) -> shapely.Geometry:
    """Return a geometry from shapely, GeoJSON (dict or text), WKT, or ``__geo_interface__``.

    What reaches beyond ±180° of longitude is cut there and moved to the other side.
    """
    try:
        shape = shapely.force_2d(parse_geometry(value))
    except GEOMETRY_ERRORS as error:
        raise QueryError(
            "intersects= is a shapely geometry, GeoJSON or WKT in EPSG:4326: "
            f"{geometry_reason(error)}"
        ) from error
    if shape.is_empty:
        raise QueryError("intersects= is an empty geometry, which nothing intersects")
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        raise QueryError("intersects= has a coordinate that is NaN or infinite")
    if not shape.is_valid:
        reason = shapely.is_valid_reason(shape)
        raise QueryError(f"intersects= is not valid ({reason}); see shapely.make_valid")
    _, south, _, north = shape.bounds
    if south < -90 or north > 90:
        raise QueryError("intersects= reaches beyond ±90°; is it longitude, latitude?")
    return wrap_geometry(shape, both_sides=True)


def place_conditions(context: SessionContext, field: Field, shape: shapely.Geometry) -> list[Expr]:
    """Return the conditions under which a footprint and `shape` have a point in common.

    The shape is in EPSG:4326, within ±180°. The rectangle around it is asked for first. An outline
    of thousands of points is then compared by shapely, which prepares it once: a function of SQL
    would go through it for each row.
    """
    components = shapely.get_parts(shape)
    # Not their union, which would drop those of points and of lines along an axis.
    corners = shapely.bounds(components)
    # A polygon without an area isn't sure to meet anything.
    flat = (corners[:, :2] == corners[:, 2:]).any(axis=1)
    corners[flat] += np.array([-SLIGHTLY, -SLIGHTLY, SLIGHTLY, SLIGHTLY])
    envelope = shapely.multipolygons(shapely.box(*corners.T))
    intersects = context.udf("st_intersects")
    conditions = [intersects(column(field.name), literal(pa.scalar(shapely.to_wkb(envelope))))]
    if shape.geom_type.endswith("Polygon") and shape.is_valid and shape.equals(envelope):
        return conditions
    # GEOS looks at a prepared geometry in one thread at a time.
    wkb, prepared = shapely.to_wkb(shape), dict[int, shapely.Geometry]()

    def exact(values: pa.Array) -> pa.Array:
        thread = threading.get_ident()
        if thread not in prepared:
            prepared[thread] = shapely.from_wkb(wkb)
            shapely.prepare(prepared[thread])
        return pa.array(shapely.intersects(prepared[thread], read_geometries(values)))

    function = udf(exact, [field.type], pa.bool_(), "immutable", "meets_the_shape")
    return [*conditions, function(column(field.name))]
