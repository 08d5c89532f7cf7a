"""Where the grids of HDF-EOS lie, by GCTP's projections in their structure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import pyproj
from pyproj.exceptions import CRSError
from virtualizarr.manifests import ManifestArray

from l2view.geolocation.struct_metadata import Structure
from l2view.stores.hierarchy import JSON

SPHERES = {0: "+ellps=clrk66", 8: "+ellps=GRS80", 12: "+datum=WGS84", 19: "+R=6370997"}
"""GCTP's spheroids."""

PROJECTIONS = {
    "GEO": "+proj=longlat",
    "SNSOID": "+proj=sinu +lon_0={lon} +x_0={x} +y_0={y}",
    "LAMAZ": "+proj=laea +lat_0={lat} +lon_0={lon} +x_0={x} +y_0={y}",
    "PS": "+proj=stere +lat_0={pole} +lat_ts={lat} +lon_0={lon} +x_0={x} +y_0={y}",
    "CEA": "+proj=cea +lon_0={lon} +lat_ts={lat} +x_0={x} +y_0={y}",
    "BCEA": "+proj=cea +lon_0={lon} +lat_ts={lat} +x_0={x} +y_0={y}",
    "UTM": "+proj=utm +zone={zone} {south}",
}
"""GCTP's projections in PROJ's words (HDF-EOS Library User's Guide, "GCTP Projection Codes")."""


def place_grids(arrays: Mapping[str, ManifestArray], structures: Iterable[Structure]) -> None:
    """Add to the arrays of a file's grids where they lie, unless they have another shape.

    That is by the attributes of Zarr's conventions ``spatial`` and ``proj``.
    """
    for grid in structures:
        if (place := _place(grid)) is None:
            continue
        for path, name, dimensions in grid.paths():
            paths = (path, f"{grid.name}/{name}", name)
            array = next((arrays[path] for path in paths if path in arrays), None)
            if array is None or "YDim" not in dimensions:
                continue
            axis = dimensions.index("YDim")
            is_of_grid = dimensions[axis + 1 : axis + 2] == ("XDim",)
            if is_of_grid and list(array.shape[axis : axis + 2]) == place["spatial:shape"]:
                own = array.metadata.dimension_names or ()
                names = own if any(name.startswith("YDim") for name in own if name) else dimensions
                attributes = {"spatial:dimensions": list(names[axis : axis + 2]), **place}
                array.metadata.attributes.update(attributes)


def _place(grid: Structure) -> JSON | None:
    """Return the transform, shape and CRS of a grid, None where its projection isn't known."""
    values = grid.values if grid.kind == "Grid" else {}
    try:
        columns, rows = int(values["XDim"]), int(values["YDim"])
        west, north = _numbers(values["UpperLeftPointMtrs"])
        east, south = _numbers(values["LowerRightMtrs"])
        parameters = _numbers(values.get("ProjParams", "")) + [0.0] * 13
    except (KeyError, ValueError):
        return None
    name = values.get("Projection", "").removeprefix("HE5_").removeprefix("GCTP_")
    wkt = _wkt(
        name, tuple(parameters[:13]), values.get("SphereCode", ""), values.get("ZoneCode", "")
    )
    if wkt is None or "_UL" not in values.get("GridOrigin", "_UL") or not (columns and rows):
        return None
    if name == "GEO":
        west, north, east, south = map(_degrees, (west, north, east, south))
    transform = [(east - west) / columns, 0.0, west, 0.0, (south - north) / rows, north]
    return {"spatial:transform": transform, "spatial:shape": [rows, columns], "proj:wkt2": wkt}


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.strip("() ").split(",") if number.strip()]


def _degrees(packed: float) -> float:
    """Return GCTP's packed degrees, minutes and seconds (DDDMMMSSS.SS) as degrees."""
    minutes, seconds = divmod(abs(packed), 1000)
    degrees, minutes = divmod(minutes, 1000)
    return float((degrees + minutes / 60 + seconds / 3600) * (1 if packed >= 0 else -1))


@lru_cache(64)
def _wkt(name: str, parameters: Sequence[float], sphere: str, zone: str) -> str | None:
    if name not in PROJECTIONS:
        return None
    axis, other = parameters[:2]
    if axis > 0:  # the other is the shorter axis, or the square of the eccentricity
        ellipsoid = f"+a={axis} +b={other}" if other > 1 else f"+a={axis} +es={other}"
    else:
        ellipsoid = SPHERES.get(int(sphere) if sphere.lstrip("-").isdigit() else 12, "")
    lon, lat = map(_degrees, parameters[4:6])
    values: JSON = {"lon": lon, "lat": lat, "x": parameters[6], "y": parameters[7]}
    values |= {"pole": 90 if lat >= 0 else -90, "zone": zone.lstrip("-")}
    values["south"] = "+south" * zone.startswith("-")
    projection = PROJECTIONS[name].format_map(values)
    try:
        return str(pyproj.CRS(f"{projection} {ellipsoid} +no_defs +type=crs").to_wkt())
    except CRSError:
        return None
