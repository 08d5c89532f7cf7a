"""Functions of SQL that DataFusion and geodatafusion lack, or that take longer than need be."""

from __future__ import annotations

import pyarrow as pa
import shapely
from datafusion import udf

from l2view.meta.footprints import read_geometries


def _within_distance(left: pa.Array, right: pa.Array, distance: pa.Array) -> pa.Array:
    shapes = (read_geometries(column) for column in (left, right))
    is_within = shapely.dwithin(*shapes, distance.to_numpy(zero_copy_only=False))
    missing = left.is_null().to_numpy(False) | right.is_null().to_numpy(False)
    return pa.array(is_within, mask=missing | distance.is_null().to_numpy(False))


DWITHIN = udf(
    _within_distance,
    [pa.binary(), pa.binary(), pa.float64()],
    pa.bool_(),
    "immutable",
    "st_dwithin",
)
"""``ST_DWithin(geometry, geometry, distance)`` of PostGIS, in degrees."""


def _from_text(texts: pa.Array) -> pa.Array:
    shapes = shapely.from_wkt(texts.to_numpy(zero_copy_only=False))
    return pa.array(shapely.to_wkb(shapes), pa.binary())


FROM_TEXT = udf(_from_text, [pa.string()], pa.binary(), "immutable", "st_geomfromtext")
"""``ST_GeomFromText(text)``, as WKB.

geodatafusion's is a union of all types of geometries, which a plan takes milliseconds to copy each
time that it is looked at.
"""

FUNCTIONS = (DWITHIN, FROM_TEXT)
