"""Ingest against the bare loop of parses that it can't do without."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import xarray as xr
from virtualizarr.parsers import HDFParser

import l2view
from benchmarks.measure import Row, paired
from l2view.ingest.files import store_registry

FILES = 200


def write_swaths(folder: Path) -> list[str]:
    """Write HDF5 swaths of 15 variables, each of a length of its own, and return their URLs."""
    folder.mkdir()
    urls = []
    for number in range(FILES):
        rows = 100 + number
        lat = np.linspace(0, 20, rows)[:, None] + np.linspace(0, 5, 64)
        lon = np.linspace(0, 20, 64) + np.zeros((rows, 1)) + number
        swath = ("row", "column")
        variables = {f"v{n:02d}": (swath, (lat + n).astype("float32")) for n in range(13)}
        dataset = xr.Dataset(
            variables,
            coords={"lat": (swath, lat), "lon": (swath, lon)},
            attrs={
                "time_coverage_start": f"2025-06-01T{number // 60:02d}:{number % 60:02d}:00Z",
                "geospatial_lat_min": 0.0,
                "geospatial_lat_max": 25.0,
                "geospatial_lon_min": float(lon.min()),
                "geospatial_lon_max": float(lon.max()),
                "platform": "A",
            },
        )
        packing = {"zlib": True, "chunksizes": (50, 64)}
        path = folder / f"s{number:04d}.h5"
        dataset.to_netcdf(path, engine="h5netcdf", encoding=dict.fromkeys(variables, packing))
        urls.append(path.as_uri())
    return urls


def ingesting(folder: Path) -> Iterator[Row]:
    """All of it in one process, and the parses alone."""
    urls = write_swaths(folder / "swaths")
    numbers = count()

    def ours() -> None:
        store = folder / f"collection{next(numbers)}"
        assert l2view.ingest(urls, store).added.count == FILES
        shutil.rmtree(store)

    def theirs() -> None:
        parser, stores = HDFParser(), store_registry(urls[0])
        for url in urls:
            parser(url, stores)

    what = f"ingest of {FILES} HDF5 granules ÷ the bare loop of VirtualiZarr parses"
    yield paired(what, ours, theirs, 1.15, runs=6)
