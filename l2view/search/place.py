"""Places on the globe, and the footprints that meet them.

Longitude and latitude are taken as a plane, with a seam at ±180°: a place that reaches across
is cut there. Footprints are expected to be cut the same way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
import shapely.geometry
from datafusion import Expr, SessionContext, literal, udf

from l2view.errors import FieldError, QueryError
from l2view.geolocation.globe import wrap_geometry
from l2view.meta.footprints import read_geometries
from l2view.meta.schema import GEOMETRIES, Field
from l2view.search.context import column
from l2view.text import join_names, unknown_name

SLIGHTLY = 1e-9
"""Degrees by which the rectangle around a point or a line is larger than it."""


def geometry_field(schema: pa.Schema, field: str | None = None) -> str:
    """Return the field that holds the footprints.

    Raises
    ------
    FieldError
        Where there is none.
    """
    for candidate in GEOMETRIES if field is None else (field,):
        if candidate in schema.names:
            return candidate
    if field is not None:
        raise FieldError(unknown_name("field", field, schema.names))
    raise FieldError(
        f"a search by place looks at the field {' or '.join(GEOMETRIES)}, and there is neither; "
        f"name another with geometry_field=. fields: {join_names(schema.names)}"
    )


def box(bbox: Sequence[float]) -> shapely.Geometry:
    """Return the rectangle of a `bbox` in degrees, in two parts where it has west > east."""
    try:
        west, south, east, north = (float(value) for value in bbox)
    except (TypeError, ValueError) as error:
        raise QueryError(f"bbox={bbox!r} is not (west, south, east, north) in degrees") from error
    if not (-90 <= south <= north <= 90 and all(-180 <= x <= 180 for x in (west, east))):
        raise QueryError(
            f"bbox={tuple(bbox)!r}: west and east go from -180 to 180, south ≤ north from -90 "
            "to 90; west > east crosses the antimeridian"
        )
    if west <= east:
        return shapely.box(west, south, east, north)
    halves = [shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)]
    return shapely.MultiPolygon(halves)


def geometry(value: Any) -> shapely.Geometry:
    """Return a geometry from shapely, GeoJSON (dict or text), WKT, or ``__geo_interface__``.

    What reaches beyond ±180° of longitude is cut there and moved to the other side.
    """
    try:
        shape = shapely.force_2d(_read(value))
    except (shapely.errors.ShapelyError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise QueryError(
            f"intersects= is a shapely geometry, GeoJSON or WKT in EPSG:4326: {error}"
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


def _read(value: Any) -> shapely.Geometry:
    if isinstance(value, shapely.Geometry):
        return value
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
        return shapely.union_all([_read(feature) for feature in value["features"]])
    return shapely.geometry.shape(value)


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
    shapely.prepare(shape)

    def exact(values: pa.Array) -> pa.Array:
        return pa.array(shapely.intersects(shape, read_geometries(values)))

    function = udf(exact, [field.type], pa.bool_(), "immutable", "meets_the_shape")
    return [*conditions, function(column(field.name))]
