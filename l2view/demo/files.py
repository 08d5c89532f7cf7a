"""Granule files as their providers write them: netCDF-3, HDF5, GeoTIFF.

The values are made up; the ways of storing them are not. Swaths have two-dimensional
coordinates and lengths of their own, each HDF5 granule is packed with a scale factor of its
own, and the scenes lie in two UTM zones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import antimeridian
import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray

FIRST = datetime(2025, 6, 1, 9, 30)
"""When the first granule was taken, in UTC."""


@dataclass(frozen=True)
class GranuleFile:
    """A granule and its metadata.

    Attributes
    ----------
    path
        The file.
    footprint
        Its outline in EPSG:4326, cut at the antimeridian.
    fields
        What ``/meta`` says of it.
    """

    path: Path
    footprint: shapely.Geometry
    fields: dict[str, Any] = field(default_factory=dict)


def write_granules(folder: Path) -> Iterator[GranuleFile]:
    """Write the granules of three products into `folder`, one after another."""
    for number in range(8):
        yield _wind(folder, number)
    for number in range(8):
        yield _temperature(folder, number)
    for number in range(6):
        yield _scene(folder, number)


def _swath(
    rows: int, columns: int, longitude: float, step: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return latitudes and longitudes of a descending pass, of shape (rows, columns)."""
    along = np.linspace(62, 62 - step * rows, rows)
    across = np.linspace(-4.5, 4.5, columns)
    latitude = along[:, None] + 0.25 * across
    drift = 0.18 * (62 - along)[:, None]
    longitudes = longitude - drift + across / np.cos(np.radians(latitude))
    return latitude, (longitudes + 180) % 360 - 180


def _outline(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> shapely.Geometry:
    """Return the outline of a swath, cut where it crosses the antimeridian."""
    step = max(1, latitude.shape[0] // 12)
    edges: list[tuple[Any, Any]] = [(slice(None, None, step), 0), (-1, slice(None))]
    edges += [(slice(None, None, -step), -1), (0, slice(None, None, -1))]
    points = [
        (float(x), float(y))
        for edge in edges
        for x, y in zip(longitude[edge], latitude[edge], strict=True)
    ]
    return antimeridian.fix_polygon(shapely.Polygon(points))


def _waves(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a smooth field between 0 and 1, which looks like weather from far away."""
    x, y = np.radians(longitude), np.radians(latitude)
    return np.asarray(
        0.5 + 0.3 * np.sin(5 * x + 2 * np.cos(6 * y)) * np.cos(7 * y) + 0.2 * np.sin(9 * y)
    )


def _attributes(start: datetime, end: datetime, **more: str) -> dict[str, str]:
    return {
        "Conventions": "CF-1.8, ACDD-1.3",
        "time_coverage_start": f"{start.isoformat()}Z",
        "time_coverage_end": f"{end.isoformat()}Z",
        **more,
    }


def _fields(name: str, start: datetime, end: datetime, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "datetime": start,
        "start_datetime": start,
        "end_datetime": end,
        "cloud_cover": None,
        **more,
    }


def _wind(folder: Path, number: int) -> GranuleFile:
    """Write a netCDF-3 swath of packed wind speed."""
    start = FIRST + timedelta(hours=31 * number)
    end = start + timedelta(minutes=14)
    rows = 380 + 24 * number
    latitude, longitude = _swath(rows, 82, 20.0 - 47 * number, 0.12)
    name = f"METOPB_WIND_{start:%Y%m%dT%H%M}"
    speed = 3 + 18 * _waves(latitude, longitude)
    speed[: 5 + number, :4] = np.nan
    swath = ("row", "cell")
    dataset = xr.Dataset(
        {
            "wind_speed": (swath, speed, {"units": "m s-1", "standard_name": "wind_speed"}),
            "lat": (swath, latitude.astype(np.float32), {"units": "degrees_north"}),
            "lon": (swath, longitude.astype(np.float32), {"units": "degrees_east"}),
        },
        attrs=_attributes(start, end, title="Ocean wind swath", platform="Metop-B"),
    )
    packing = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -32767}
    path = folder / f"{name}.nc"
    dataset.to_netcdf(
        path, engine="scipy", format="NETCDF3_64BIT", encoding={"wind_speed": packing}
    )
    fields = _fields(name, start, end, platform="Metop-B", product="wind")
    return GranuleFile(path, _outline(latitude, longitude), fields)


def _temperature(folder: Path, number: int) -> GranuleFile:
    """Write an HDF5 swath whose packing is its own."""
    start = FIRST + timedelta(hours=29 * number, minutes=40)
    end = start + timedelta(minutes=5)
    latitude, longitude = _swath(300 + 16 * number, 128, 2.0 + 44 * number, 0.09)
    name = f"AQUA_SST_{start:%Y%m%dT%H%M}"
    kelvin = 271 + 32 * np.cos(np.radians(latitude)) ** 2 + 2 * _waves(latitude, longitude)
    swath = ("nj", "ni")
    dataset = xr.Dataset(
        {
            "sea_surface_temperature": (swath, kelvin, {"units": "kelvin"}),
            "lat": (swath, latitude.astype(np.float32), {"units": "degrees_north"}),
            "lon": (swath, longitude.astype(np.float32), {"units": "degrees_east"}),
        },
        attrs=_attributes(start, end, title="Sea surface temperature swath", platform="Aqua"),
    )
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
    dataset.to_netcdf(path, engine="h5netcdf", encoding={"sea_surface_temperature": packing})
    fields = _fields(name, start, end, platform="Aqua", product="sst")
    return GranuleFile(path, _outline(latitude, longitude), fields)


def _scene(folder: Path, number: int) -> GranuleFile:
    """Write a GeoTIFF scene, tiled and compressed, with overviews."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.transform import from_origin
    from rasterio.warp import transform_geom

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
        driver="GTiff",
        width=size,
        height=size,
        count=1,
        dtype="uint16",
        crs=f"EPSG:{32600 + zone}",
        transform=from_origin(west, north, resolution, resolution),
        tiled=True,
        blockxsize=256,
        blockysize=256,
        compress="deflate",
        nodata=0,
    ) as scene:
        scene.write(values, 1)
        scene.build_overviews([2, 4], Resampling.average)
        corners = shapely.box(*scene.bounds)
        outline = shapely.geometry.shape(
            transform_geom(scene.crs, "EPSG:4326", shapely.geometry.mapping(corners))
        )
    fields = _fields(name, start, start, platform="Sentinel-2B", product="scene")
    return GranuleFile(path, outline, fields | {"cloud_cover": float(cover)})
