"""Transforms from (column, row) of pixels' corners to coordinates, as files declare them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

UNEVEN = 0.02
"""By how much of a cell the axes of a raster may be off, as those in single precision are."""


def spatial_transform(attributes: Mapping[str, Any]) -> Affine | None:
    """Return the transform of Zarr's convention ``spatial``, or of STAC's ``proj:transform``.

    Pixels are areas: a transform to their centres is moved by half a pixel.
    """
    for name in ("spatial:transform", "proj:transform"):
        numbers = attributes.get(name)
        if isinstance(numbers, list) and len(numbers) >= 6:
            transform = Affine(*numbers[:6])
            centres = attributes.get("spatial:registration") == "node"
            return transform @ Affine.translation(-0.5, -0.5) if centres else transform
    return None


def geotiff_transform(attributes: Mapping[str, Any]) -> Affine | None:
    """Return the transform of a GeoTIFF's tags (OGC 19-008r4, B.6), None for ground points."""
    if "model_transformation" in attributes:
        a, b, _, c, d, e, _, f = attributes["model_transformation"][:8]
        transform = Affine(a, b, c, d, e, f)
    elif "model_pixel_scale" in attributes and "model_tiepoint" in attributes:
        scale_x, scale_y = attributes["model_pixel_scale"][:2]
        column, row, _, x, y = attributes["model_tiepoint"][:5]
        transform = Affine(scale_x, 0, x - column * scale_x, 0, -scale_y, y + row * scale_y)
    else:
        return None
    is_point = attributes.get("raster_type") == 2  # the tags are of pixels' centres
    return transform @ Affine.translation(-0.5, -0.5) if is_point else transform


def ground_points(attributes: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """Return a GeoTIFF's ground control points: column, row, x and y, of shape (n, 4)."""
    tie_points = np.array(attributes.get("model_tiepoint") or (), dtype=float)
    named = "model_pixel_scale" in attributes or "model_transformation" in attributes
    if named or len(tie_points) < 18 or len(tie_points) % 6:
        return None
    points = tie_points.reshape(-1, 6)[:, [0, 1, 3, 4]]
    if attributes.get("raster_type") == 2:  # the points are in pixels' centres
        points[:, :2] += 0.5
    return points


def gdal_transform(attributes: Mapping[str, Any]) -> Affine | None:
    """Return the transform of GDAL's attribute ``GeoTransform``, six numbers in a text."""
    try:
        return Affine.from_gdal(*map(float, attributes["GeoTransform"].split()))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


NWC_SAF_CORNERS = (
    *("XGEO_UP_LEFT", "YGEO_UP_LEFT", "XGEO_LOW_RIGHT", "YGEO_LOW_RIGHT"),
    *("NC", "NL"),
)
"""The centres of the first and the last pixel, and the numbers of columns and lines."""


def nwc_saf_transform(attributes: Mapping[str, Any]) -> Affine | None:
    """Return the transform of an HDF5 product of EUMETSAT's NWC SAF (Data Output Format, 4.1)."""
    try:
        west, north, east, south, columns, rows = (float(attributes[n]) for n in NWC_SAF_CORNERS)
        dx, dy = (east - west) / (columns - 1), (south - north) / (rows - 1)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return Affine(dx, 0.0, west - dx / 2, 0.0, dy, north - dy / 2)


def axes_transform(y: NDArray[np.float64], x: NDArray[np.float64]) -> Affine | None:
    """Return the transform of a grid by the centres of its cells, None where they are uneven."""
    if not (_is_even(y) and _is_even(x)):
        return None
    dy, dx = (y[-1] - y[0]) / (len(y) - 1), (x[-1] - x[0]) / (len(x) - 1)
    return Affine(dx, 0.0, x[0] - dx / 2, 0.0, dy, y[0] - dy / 2)


def _is_even(centres: NDArray[np.float64]) -> bool:
    if len(centres) < 2 or centres[0] == centres[-1]:
        return False
    line = np.linspace(centres[0], centres[-1], len(centres))
    step = abs(centres[-1] - centres[0]) / (len(centres) - 1)
    return bool((np.abs(centres - line) <= UNEVEN * step).all())
