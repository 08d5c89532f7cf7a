"""Granule files as their providers write them: netCDF-3, HDF5, GeoTIFF.

The values are made up; the ways of storing them are not. Swaths have two-dimensional
coordinates and lengths of their own, each HDF5 granule is packed with a scale factor of its
own, and the scenes lie in two UTM zones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from l2view.errors import L2ViewError

FIRST = datetime(2025, 6, 1, 9, 30)  # when the first granule was taken, in UTC


type Cells = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Latitudes and longitudes, of shape (rows, columns)."""

type Times = tuple[datetime, datetime]

PACKAGES = ("h5netcdf", "matplotlib", "rasterio", "scipy", "virtual_tiff")
"""What writing the demo's files, referring to them and drawing takes."""


def require_packages() -> None:
    """Raise an L2ViewError where a package is missing, before anything is written."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise L2ViewError(f"the demo needs {', '.join(missing)}: pip install 'l2view[demo]'")


@dataclass(frozen=True)
class GranuleFile:
    """A granule, and what its file doesn't say of itself."""

    path: Path
    fields: dict[str, Any]


def write_granules(folder: Path) -> Iterator[GranuleFile]:
    """Write the granules of three products into `folder`, one after another."""
    for write, count in ((_wind, 8), (_temperature, 8), (_scene, 6)):
        for number in range(count):
            yield write(folder, number)


def _swath(rows: int, columns: int, longitude: float, step: float) -> Cells:
    """Return the cells of a descending pass."""
    along = np.linspace(62, 62 - step * rows, rows)
    across = np.linspace(-4.5, 4.5, columns)
    latitude = along[:, None] + 0.25 * across
    drift = 0.18 * (62 - along)[:, None]
    longitudes = longitude - drift + across / np.cos(np.radians(latitude))
    return latitude, (longitudes + 180) % 360 - 180


def _waves(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a smooth field between 0 and 1, which looks like weather from far away."""
    x, y = np.radians(longitude), np.radians(latitude)
    return np.asarray(
        0.5 + 0.3 * np.sin(5 * x + 2 * np.cos(6 * y)) * np.cos(7 * y) + 0.2 * np.sin(9 * y)
    )


def _dataset(
    name: str, variable: xr.Variable, cells: Cells, times: Times, **attributes: str
) -> xr.Dataset:
    """Return a variable of a swath with its coordinates."""
    latitude, longitude = (
        (variable.dims, degrees.astype(np.float32), {"units": units})
        for degrees, units in zip(cells, ("degrees_north", "degrees_east"), strict=True)
    )
    start, end = (f"{time.isoformat()}Z" for time in times)
    coverage = {"time_coverage_start": start, "time_coverage_end": end}
    return xr.Dataset(
        {name: variable, "lat": latitude, "lon": longitude},
        attrs={"Conventions": "CF-1.8, ACDD-1.3", **coverage, **attributes},
    )


def _wind(folder: Path, number: int) -> GranuleFile:
    """Write a netCDF-3 swath of packed wind speed."""
    start = FIRST + timedelta(hours=31 * number)
    times = start, start + timedelta(minutes=14)
    cells = _swath(380 + 24 * number, 82, 20.0 - 47 * number, 0.12)
    name = f"METOPB_WIND_{start:%Y%m%dT%H%M}"
    speed = 3 + 18 * _waves(*cells)
    speed[: 5 + number, :4] = np.nan
    attributes = {"units": "m s-1", "standard_name": "wind_speed"}
    variable = xr.Variable(("row", "cell"), speed, attributes)
    described = {"title": "Ocean wind swath", "platform": "Metop-B"}
    path = folder / f"{name}.nc"
    packing = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -32767}
    _dataset("wind_speed", variable, cells, times, **described).to_netcdf(
        path, engine="scipy", format="NETCDF3_64BIT", encoding={"wind_speed": packing}
    )
    return GranuleFile(path, {"product": "wind"})


def _temperature(folder: Path, number: int) -> GranuleFile:
    """Write an HDF5 swath whose packing is its own."""
    start = FIRST + timedelta(hours=29 * number, minutes=40)
    times = start, start + timedelta(minutes=5)
    cells = _swath(300 + 16 * number, 128, 2.0 + 44 * number, 0.09)
    name = f"AQUA_SST_{start:%Y%m%dT%H%M}"
    kelvin = 271 + 32 * np.cos(np.radians(cells[0])) ** 2 + 2 * _waves(*cells)
    variable = xr.Variable(("nj", "ni"), kelvin, {"units": "kelvin"})
    described = {"title": "Sea surface temperature swath", "platform": "Aqua"}
    packing = {
        "dtype": "int16",
        "scale_factor": round(0.004 + 0.0005 * number, 4),
        "add_offset": 273.15 + number,
        "_FillValue": -32767,
        "chunksizes": (100, 128),
        "compression": "gzip",
        "compression_opts": 4,
        "shuffle": True,
    }
    path = folder / f"{name}.h5"
    _dataset("sea_surface_temperature", variable, cells, times, **described).to_netcdf(
        path, engine="h5netcdf", encoding={"sea_surface_temperature": packing}
    )
    return GranuleFile(path, {"product": "sst"})


def _scene(folder: Path, number: int) -> GranuleFile:
    """Write a GeoTIFF scene, tiled and compressed, with overviews."""
    import rasterio
    from rasterio.transform import from_origin

    start = FIRST + timedelta(days=1 + 2 * number, hours=1)
    zone = 31 if number % 2 == 0 else 32
    size, resolution = 1024, 100.0
    west, north = 399_960.0 + 60_000 * (number // 2), 5_000_040.0 - 80_000 * (number // 2)
    cover = (7 + 31 * number) % 97
    name = f"S2B_T{zone}TGJ_{start:%Y%m%dT%H%M}"
    y, x = np.mgrid[0:size, 0:size] / size
    land = 1200 + 900 * np.sin(9 * x + 4 * np.cos(7 * y) + number) * np.cos(8 * y)
    cloudy = np.sin(21 * x + 13 * y + number) * np.cos(17 * y - 9 * x) > 1 - cover / 55
    values = np.where(cloudy, 9000, land + 1000).astype(np.uint16)
    path = folder / f"{name}.tif"
    with rasterio.open(
        path,
        "w",
        driver="COG",
        width=size,
        height=size,
        count=1,
        dtype="uint16",
        crs=f"EPSG:{32600 + zone}",
        transform=from_origin(west, north, resolution, resolution),
        blocksize=256,
        compress="deflate",
        overview_resampling="average",
        nodata=0,
    ) as scene:
        scene.write(values, 1)
    times = dict.fromkeys(("datetime", "start_datetime", "end_datetime"), start)
    fields = {"product": "scene", "platform": "Sentinel-2B", "cloud_cover": float(cover)}
    return GranuleFile(path, fields | times)
