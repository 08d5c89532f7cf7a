"""Coordinate reference systems as files declare them, and the units of their axes.

CF grid mappings (CF 1.12, section 5.6 and appendix F), GeoTIFF keys (OGC 19-008r4) and STAC's
``proj:`` fields. pyproj understands mappings, PROJ strings and EPSG codes; what is here names them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray
from odc.geo import CRS
from pyproj.crs import (  # type: ignore[attr-defined]
    CoordinateOperation,
    Datum,
    Ellipsoid,
    GeographicCRS,
    ProjectedCRS,
)
from pyproj.exceptions import CRSError

from l2view.arrays.quiet import QUIET
from l2view.regrid.projection import WGS84, project
from l2view.regrid.target import metres_per_unit

CF_MAPPING = frozenset({
    "azimuth_of_central_line", "crs_wkt", "earth_radius", "false_easting", "false_northing",
    "fixed_angle_axis", "geographic_crs_name", "grid_mapping_name", "grid_north_pole_latitude",
    "grid_north_pole_longitude", "horizontal_datum_name", "inverse_flattening",
    "latitude_of_projection_origin", "longitude_of_central_meridian", "longitude_of_prime_meridian",
    "longitude_of_projection_origin", "north_pole_grid_longitude", "perspective_point_height",
    "prime_meridian_name", "projected_crs_name", "reference_ellipsoid_name",
    "scale_factor_at_central_meridian", "scale_factor_at_projection_origin", "semi_major_axis",
    "semi_minor_axis", "spatial_ref", "standard_parallel", "straight_vertical_longitude_from_pole",
    "sweep_angle_axis", "towgs84",
})  # fmt: skip
"""The attributes of a grid mapping (CF 1.12, appendix F)."""

LENGTHS = dict.fromkeys(("m", "metre", "meter", "metres", "meters"), 1.0) | dict.fromkeys(
    ("km", "kilometre", "kilometer", "kilometres", "kilometers"), 1e3
)
"""Units of axes in a projection, in metres."""

ANGLES = (
    dict.fromkeys(("rad", "radian", "radians"), 1.0)
    | dict.fromkeys(("microradian", "microradians", "urad"), 1e-6)
    | dict.fromkeys(("degree", "degrees", "deg"), math.pi / 180)
)
"""Units of the axes of a geostationary projection, in radians."""

USER_DEFINED = 32767  # GeoTIFF's code for what its other keys define

METHODS = {
    1: "tmerc", 7: "merc", 8: "lcc", 9: "lcc", 10: "laea", 11: "aea", 12: "aeqd", 14: "stere",
    15: "stere", 16: "sterea", 17: "eqc", 18: "cass", 21: "ortho", 22: "poly", 24: "sinu",
    28: "cea",
}  # fmt: skip
"""GeoTIFF's coordinate transformations (GeoKey 3075) in PROJ's names."""

POLAR_STEREOGRAPHIC = 15

PARAMETERS = {
    "proj_std_parallel1": "lat_1", "proj_std_parallel2": "lat_2", "proj_nat_origin_lat": "lat_0",
    "proj_false_origin_lat": "lat_0", "proj_center_lat": "lat_0", "proj_nat_origin_long": "lon_0",
    "proj_false_origin_long": "lon_0", "proj_center_long": "lon_0",
    "proj_straight_vert_pole_long": "lon_0", "proj_scale_at_nat_origin": "k_0",
    "proj_scale_at_center": "k_0", "proj_false_easting": "x_0", "proj_false_northing": "y_0",
    "proj_false_origin_easting": "x_0", "proj_false_origin_northing": "y_0",
    "proj_center_easting": "x_0", "proj_center_northing": "y_0",
}  # fmt: skip
"""GeoTIFF's keys of parameters, as virtual-tiff names them, in PROJ's names."""

GEOKEYS = PARAMETERS.keys() | {
    "citation", "geog_ellipsoid", "geog_geodetic_datum", "geog_inv_flattening",
    "geog_prime_meridian_long", "geog_semi_major_axis", "geog_semi_minor_axis", "geographic_type",
    "model_type", "proj_citation", "proj_coord_trans", "proj_linear_unit_size",
    "proj_linear_units", "projected_type", "projection",
}  # fmt: skip
"""GeoTIFF's keys that define a CRS."""

ESRI_WKT = "ESRI PE String = "
"""What a citation begins with that is WKT, of projections that GeoTIFF hasn't."""

MAX_ROUND_TRIP = 1.0
"""By how many metres a place may be off that is projected and back, if it is on the globe."""

PROJ_FIELDS = ("proj:code", "proj:wkt2", "proj:projjson", "proj:epsg")
"""The fields of STAC's Projection extension and of Zarr's convention ``proj`` with a CRS."""


@dataclass
class CrsTable:
    """The coordinate reference systems of some granules, each once, numbered as they came."""

    entries: list[CRS] = field(default_factory=list)
    unknown: dict[str, None] = field(default_factory=dict)  # declarations that aren't understood
    _numbers: dict[str, int] = field(default_factory=dict)

    def number(self, declaration: Any) -> int:
        """Return the number of a CRS, -1 for none and for one that can't be understood."""
        if declaration is None or declaration == "":
            return -1
        text = (
            declaration
            if isinstance(declaration, str)
            else json.dumps(declaration, sort_keys=True, default=str)
        )
        if text not in self._numbers:
            try:
                crs = CRS(text)
            except CRSError:
                self._numbers[text] = -1
                self.unknown[text] = None
                return -1
            if crs not in self.entries:
                self.entries.append(crs)
            self._numbers[text] = self.entries.index(crs)
        return self._numbers[text]


def proj_crs(attributes: Mapping[str, Any]) -> Any:
    """Return the CRS of ``proj:`` fields, None for none."""
    for name in PROJ_FIELDS:
        if declaration := attributes.get(name):
            return f"EPSG:{declaration}" if name == "proj:epsg" else declaration
    return None


PROJ_TEXTS = (
    *("crs", "proj4", "proj4_string", "proj4text", "PROJECTION", "gdal_projection"),
    *("epsg_code", "EPSG_code", "epsg"),
)
"""Attributes with PROJ's parameters or a code: xarray's, of EUMETSAT's NWC SAF, of others."""

PROJ_TEXT = re.compile(r"(?:\+init=)?(EPSG:\d+)( .*)?|(\+\w+(=\S+)?\s*)+|\d{4,}", re.IGNORECASE)


def proj_text_crs(attributes: Mapping[str, Any]) -> str | None:
    """Return the CRS that attributes have as PROJ's parameters or code, None for none."""
    texts = (attributes.get(name) for name in PROJ_TEXTS)
    matches = (PROJ_TEXT.fullmatch(str(text).strip()) for text in texts if text is not None)
    text = next((match[1] or match[0] for match in matches if match), None)
    return f"EPSG:{text}" if text is not None and text.isdigit() else text


def mapping_crs(attributes: Mapping[str, Any]) -> str | None:
    """Return the CRS of a grid mapping as WKT, None where the attributes are none.

    A mapping that pyproj can't read gives its name, which is no CRS: `CrsTable` then tells it.
    """
    for name in ("crs_wkt", "spatial_ref"):
        if isinstance(wkt := attributes.get(name), str):
            return wkt
    if "grid_mapping_name" not in attributes:
        return None
    mapping = json.dumps({k: v for k, v in attributes.items() if k in CF_MAPPING})
    return _mapping_wkt(mapping, proj_text_crs(attributes))


@lru_cache(maxsize=256)
def _mapping_wkt(text: str, code: str | None) -> str:
    mapping = json.loads(text)
    # netCDF's attributes of one number may come as a list.
    scalars = {k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in mapping.items()}
    try:
        with QUIET:
            return str(pyproj.CRS.from_cf(scalars).to_wkt())
    except (CRSError, KeyError, TypeError, ValueError) as error:
        return code or f"the grid mapping {mapping['grid_mapping_name']} ({error})"


def geokeys_crs(attributes: Mapping[str, Any]) -> str | None:
    """Return the CRS of a raster's GeoTIFF keys, None where they define none that is known."""
    if "model_tiepoint" not in attributes and "model_transformation" not in attributes:
        return None
    is_geographic = attributes.get("model_type") == 2
    code = attributes.get("geographic_type" if is_geographic else "projected_type")
    if code not in (None, USER_DEFINED):
        return f"EPSG:{code}"
    keys = {k: v for k, v in attributes.items() if k in GEOKEYS}
    return _geokeys_wkt(json.dumps(keys, sort_keys=True))


@lru_cache(maxsize=256)
def _geokeys_wkt(text: str) -> str | None:
    keys = json.loads(text)
    for citation in (str(keys.get(name, "")) for name in ("proj_citation", "citation")):
        if citation.startswith(ESRI_WKT):
            return citation.removeprefix(ESRI_WKT).rstrip("|")
    base = _geographic_crs(keys)
    if keys.get("model_type") == 2:
        return str(base.to_wkt())
    metres = keys.get("proj_linear_unit_size")
    if metres is None:
        metres = {9002: 0.3048, 9003: 1200 / 3937}.get(keys.get("proj_linear_units"), 1.0)
    conversion = _conversion(keys, metres)
    if conversion is None:
        return None
    crs = ProjectedCRS(conversion, geodetic_crs=base).to_json_dict()
    if metres != 1:
        for axis in crs["coordinate_system"]["axis"]:
            axis["unit"] = {"type": "LinearUnit", "name": "unit", "conversion_factor": metres}
    return str(pyproj.CRS.from_json_dict(crs).to_wkt())


def _conversion(keys: Mapping[str, Any], metres: float) -> CoordinateOperation | None:
    """Return the projection of GeoTIFF keys, by its EPSG code or its parameters."""
    code = keys.get("projection")
    if code not in (None, USER_DEFINED):
        try:
            return CoordinateOperation.from_epsg(code)
        except CRSError:
            return None
    if keys.get("proj_coord_trans") not in METHODS:
        return None
    parameters = " ".join(f"+{name}={value}" for name, value in _parameters(keys, metres))
    crs = pyproj.CRS(f"{parameters} {_ellipsoid(keys)} +units=m +no_defs +type=crs")
    return crs.coordinate_operation


def _parameters(keys: Mapping[str, Any], metres: float) -> list[tuple[str, Any]]:
    """Return PROJ's parameters of a projection, eastings and northings in metres."""
    method = keys["proj_coord_trans"]
    parameters = {parameter: keys[key] for key, parameter in PARAMETERS.items() if key in keys}
    for name in ("x_0", "y_0"):
        parameters[name] = parameters.get(name, 0) * metres
    latitude = parameters.get("lat_0", 90)
    if method == POLAR_STEREOGRAPHIC and abs(latitude) < 90:
        # It is the latitude of true scale then, as GDAL has it.
        parameters |= {"lat_0": math.copysign(90, latitude), "lat_ts": latitude}
        parameters.pop("k_0", None)
    if METHODS[method] in ("merc", "eqc", "cea") and "lat_1" in parameters:
        parameters["lat_ts"] = parameters.pop("lat_1")
    if METHODS[method] == "lcc" and "lat_1" not in parameters:
        parameters["lat_1"] = parameters.get("lat_0", 0)
    return [("proj", METHODS[method]), *parameters.items()]


def _geographic_crs(keys: Mapping[str, Any]) -> pyproj.CRS:
    """Return the geographic CRS of GeoTIFF keys, WGS 84 where they define none."""
    code, datum = keys.get("geographic_type"), keys.get("geog_geodetic_datum")
    if code not in (None, USER_DEFINED):
        return pyproj.CRS.from_epsg(code)
    if datum not in (None, USER_DEFINED) and not keys.get("geog_prime_meridian_long"):
        with suppress(CRSError):
            return GeographicCRS(datum=Datum.from_epsg(datum))
    if "geog_semi_major_axis" not in keys and keys.get("geog_ellipsoid") in (None, USER_DEFINED):
        return pyproj.CRS.from_epsg(4326)
    meridian = keys.get("geog_prime_meridian_long", 0)
    return pyproj.CRS(f"+proj=longlat {_ellipsoid(keys)} +pm={meridian} +no_defs +type=crs")


def _ellipsoid(keys: Mapping[str, Any]) -> str:
    axis = keys.get("geog_semi_major_axis")
    if axis is None:
        code = keys.get("geog_ellipsoid")
        if code in (None, USER_DEFINED):
            return "+datum=WGS84"
        ellipsoid = Ellipsoid.from_epsg(code)
        return f"+a={ellipsoid.semi_major_metre} +b={ellipsoid.semi_minor_metre}"
    if flattening := keys.get("geog_inv_flattening"):
        return f"+a={axis} +rf={flattening}"
    return f"+a={axis} +b={keys.get('geog_semi_minor_axis', axis)}"


def has_other_meridian(crs: CRS) -> bool:
    """Whether a CRS's coordinates are longitudes that aren't counted from Greenwich."""
    meridian = crs.proj.prime_meridian
    return bool(crs.geographic and meridian is not None and meridian.longitude != 0)


def axis_factor(units: Any, crs: CRS) -> float | None:
    """Return by what the values of an axis are multiplied to be coordinates of its CRS.

    No units are the CRS's own; None is for units that are unknown, or that the CRS can't have.
    Angles in a projection are those at which a satellite sees a place, from its height (CF 1.12,
    appendix F, "Geostationary projection").
    """
    name = str(units or "").lower().strip()
    (axis, *_) = crs.proj.axis_info
    if name in ("", "1", axis.unit_name.lower()):
        return 1.0
    if crs.geographic:
        return 1.0 if name.startswith("degree") else None
    if name in ANGLES:
        height = _height(crs)
        return None if height is None else ANGLES[name] * height / axis.unit_conversion_factor
    return LENGTHS[name] / axis.unit_conversion_factor if name in LENGTHS else None


@lru_cache(maxsize=64)
def _height(crs: CRS) -> float | None:
    """Return the height in metres from which a projection shows the globe, None for none."""
    with QUIET:
        return crs.proj.to_cf().get("perspective_point_height")


def to_degrees(
    x: NDArray[np.float64], y: NDArray[np.float64], crs: CRS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the latitudes and longitudes of coordinates, NaN for those off the globe.

    Off the globe are those that no place has: beside the disk that a geostationary satellite sees,
    or beyond the antimeridian of a sinusoidal projection.
    """
    lon, lat = project(x, y, crs, WGS84)
    valid = np.isfinite(lon) & np.isfinite(lat) & (np.abs(lat) <= 90 + 1e-9)
    if not crs.geographic:
        again_x, again_y = project(lon, lat, WGS84, crs)
        with np.errstate(invalid="ignore"):
            valid &= np.hypot(again_x - x, again_y - y) * metres_per_unit(crs) <= MAX_ROUND_TRIP
    return np.where(valid, lat, np.nan), np.where(valid, lon, np.nan)
