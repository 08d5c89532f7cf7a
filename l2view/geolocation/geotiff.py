"""Where a raster's pixels lie: by GeoTIFF keys (OGC 19-008r4), or by Zarr's conventions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from affine import Affine


def is_placed(attributes: Mapping[str, Any]) -> bool:
    """Return whether a GeoTIFF says where its pixels lie, other than by ground control points."""
    return "model_transformation" in attributes or "model_pixel_scale" in attributes


def transform_of(attributes: Mapping[str, Any]) -> Affine:
    """Return the transform from pixels to coordinates of a GeoTIFF (OGC 19-008r4, B.6)."""
    if "model_transformation" in attributes:
        a, b, _, c, d, e, _, f = attributes["model_transformation"][:8]
        return Affine(a, b, c, d, e, f)
    scale_x, scale_y = attributes["model_pixel_scale"][:2]
    column, row, _, x, y = attributes["model_tiepoint"][:5]
    if attributes.get("raster_type") == 2:  # the point is a pixel's centre
        column, row = column + 0.5, row + 0.5
    return Affine(scale_x, 0, x - column * scale_x, 0, -scale_y, y + row * scale_y)


USER_DEFINED = 32767
PROJECTIONS = {
    1: "tmerc",
    7: "merc",
    8: "lcc",
    10: "laea",
    11: "aea",
    12: "aeqd",
    15: "stere",
    24: "sinu",
}
"""GeoTIFF's codes of coordinate transformations (OGC 19-008r4, GeoKey 3075) in PROJ's names."""

PARAMETERS = {
    "proj_std_parallel1": "lat_1",
    "proj_std_parallel2": "lat_2",
    "proj_nat_origin_lat": "lat_0",
    "proj_false_origin_lat": "lat_0",
    "proj_center_lat": "lat_0",
    "proj_nat_origin_long": "lon_0",
    "proj_false_origin_long": "lon_0",
    "proj_center_long": "lon_0",
    "proj_straight_vert_pole_long": "lon_0",
    "proj_scale_at_nat_origin": "k_0",
    "proj_false_easting": "x_0",
    "proj_false_northing": "y_0",
    "proj_false_origin_easting": "x_0",
    "proj_false_origin_northing": "y_0",
}


def crs_of(attributes: Mapping[str, Any]) -> str | None:
    """Return the coordinate reference system of GeoTIFF keys, None where there is none."""
    if "model_tiepoint" not in attributes and "model_transformation" not in attributes:
        return None
    projected, geographic = attributes.get("projected_type"), attributes.get("geographic_type")
    if attributes.get("model_type") == 2:
        return f"EPSG:{geographic}" if geographic not in (None, USER_DEFINED) else "EPSG:4326"
    if projected not in (None, USER_DEFINED):
        return f"EPSG:{projected}"
    name = PROJECTIONS.get(int(attributes.get("proj_coord_trans", 0)))
    if name is None:
        return None
    said = [f"+proj={name}"]
    for key, parameter in PARAMETERS.items():
        if key in attributes:
            said.append(f"+{parameter}={attributes[key]}")
    axis, flattening = attributes.get("geog_semi_major_axis"), attributes.get("geog_inv_flattening")
    if axis and flattening:
        said.append(f"+a={axis} +rf={flattening}")
    else:
        said.append("+datum=WGS84")
    unit = attributes.get("proj_linear_units")
    return " ".join([*said, "+units=us-ft" if unit == 9003 else "+units=m", "+no_defs"])


def placement(attributes: Mapping[str, Any]) -> tuple[Affine, Any] | None:
    """Return a raster's transform and CRS, None where its attributes don't say both.

    They are said by GeoTIFF keys, or by the names of the ``spatial:`` and ``proj:`` conventions.
    """
    transform, crs = transform_said(attributes), crs_said(attributes)
    return None if transform is None or crs is None else (transform, crs)


def transform_said(attributes: Mapping[str, Any]) -> Affine | None:
    """Return the transform from (column, row) to coordinates that attributes say, None for none.

    Pixels are areas: a transform to their centres is moved by half a pixel.
    """
    for name in ("spatial:transform", "proj:transform"):
        found = attributes.get(name)
        if isinstance(found, list) and len(found) >= 6:
            made = Affine(*found[:6])
            nodes = attributes.get("spatial:registration") == "node"
            return made @ Affine.translation(-0.5, -0.5) if nodes else made
    if crs_of(attributes) is not None and is_placed(attributes):
        return transform_of(attributes)
    return None


def crs_said(attributes: Mapping[str, Any]) -> Any:
    """Return the coordinate reference system that attributes say, None for none."""
    for name in ("proj:code", "proj:wkt2", "proj:projjson", "proj:epsg"):
        if said := attributes.get(name):
            return f"EPSG:{said}" if name == "proj:epsg" else said
    return crs_of(attributes)
