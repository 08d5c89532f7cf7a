"""CF grid mappings: the CRS that they say, and in which units their axes are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyproj
from affine import Affine

CF_MAPPING = frozenset(
    {
        "azimuth_of_central_line",
        "earth_radius",
        "false_easting",
        "false_northing",
        "fixed_angle_axis",
        "geographic_crs_name",
        "grid_mapping_name",
        "grid_north_pole_latitude",
        "grid_north_pole_longitude",
        "horizontal_datum_name",
        "inverse_flattening",
        "latitude_of_projection_origin",
        "longitude_of_central_meridian",
        "longitude_of_prime_meridian",
        "longitude_of_projection_origin",
        "north_pole_grid_longitude",
        "perspective_point_height",
        "prime_meridian_name",
        "projected_crs_name",
        "reference_ellipsoid_name",
        "scale_factor_at_central_meridian",
        "scale_factor_at_projection_origin",
        "semi_major_axis",
        "semi_minor_axis",
        "standard_parallel",
        "straight_vertical_longitude_from_pole",
        "sweep_angle_axis",
        "towgs84",
    }
)
"""The attributes of a grid mapping (CF 1.12, appendix F)."""

LENGTHS = dict.fromkeys(("m", "metre", "meter", "metres", "meters", "1", ""), 1.0) | dict.fromkeys(
    ("km", "kilometre", "kilometer", "kilometres", "kilometers"), 1e3
)
"""Units of axes in a projection, in metres."""

ANGLES = dict.fromkeys(("rad", "radian", "radians"), 1.0) | dict.fromkeys(
    ("microradian", "microradians", "urad"), 1e-6
)
"""Units of the axes of a geostationary projection, in radians."""


def crs_of_mapping(said: Mapping[str, Any]) -> str | None:
    """Return the CRS of the attributes of a grid mapping, None where they are none."""
    for name in ("crs_wkt", "spatial_ref"):
        if isinstance(found := said.get(name), str):
            return found
    if "grid_mapping_name" in said:
        return str(pyproj.CRS.from_cf(dict(said)).to_wkt())
    return None


def geotransform_of(said: Any) -> Affine | None:
    """Return the transform of GDAL's attribute of that name, six numbers in a text."""
    if not isinstance(said, str):
        return None
    try:
        return Affine.from_gdal(*map(float, said.split()))
    except (TypeError, ValueError):
        return None


def metres_of(units: Any, mapping: Mapping[str, Any]) -> float | None:
    """Return what the values of an axis in a projection are multiplied by, None for unknown units.

    Angles are those at which a satellite sees a place, from its height (CF 1.12, appendix F,
    "Geostationary projection").

    Parameters
    ----------
    units
        The axis' units, None where it says none.
    mapping
        The attributes of its grid mapping.
    """
    name = str(units or "m").lower().strip()
    if name in ANGLES:
        height = mapping.get("perspective_point_height")
        return None if height is None else ANGLES[name] * float(height)
    return LENGTHS.get(name)
