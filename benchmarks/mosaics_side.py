"""Mosaics by one engine, in a process of its own: ``mosaics_side.py ENGINE FOLDER TARGET METHOD``.

It makes one for each line that it reads, and prints the seconds from the call to the last pixel,
and the most memory that the process held so far in MiB. A line that isn't empty is where the
mosaic goes: a ``.zarr`` that is written chunk by chunk, ``array`` for one of NumPy's that it is
stored into, or a ``.npy``. It imports nothing of the
benchmarks, as it also runs where l2view isn't installed.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

CRS = "EPSG:32618"
WEST, NORTH = 265_800, 5_043_000
"""Where the zones meet (78° W), in the middle of the scenes."""

TARGETS = {"20 m": (20, 8192), "10 m": (10, 8192), "8 m": (8, 20_000)}
"""Resolution and size of mosaics."""

CHUNK = 1024
FIRST = datetime(2025, 6, 1, 16, tzinfo=UTC)
STEP = timedelta(minutes=1)
"""The scenes follow each other by their names."""


def geobox(target: str) -> GeoBox:
    """Return a target, whose chunks end elsewhere than those of the scenes."""
    resolution, size = TARGETS[target]
    reach, off = resolution * size / 2, 3_000
    west, north = WEST + off - reach, NORTH - off + reach
    corners = (west, north - 2 * reach, west + 2 * reach, north)
    return GeoBox.from_bbox(corners, CRS, resolution=resolution)


def l2view(folder: Path, target: GeoBox, method: str) -> Callable[[], xr.Dataset]:
    import l2view as package

    view = package.open(folder / "collection", order_by="datetime", authorize=True)
    chunks = (CHUNK, CHUNK)
    return lambda: package.mosaic(view, like=target, bands="0", chunks=chunks, resampling=method)


def odc_stac(folder: Path, target: GeoBox, method: str) -> Callable[[], xr.Dataset]:
    import odc.stac

    scenes = sorted((folder / "scenes").glob("*.tif"))
    items = [_item(path, FIRST + number * STEP) for number, path in enumerate(scenes)]
    options: Any = {"chunks": {"x": CHUNK, "y": CHUNK}, "groupby": "solar_day"}
    return lambda: odc.stac.load(items, geobox=target, resampling=method, **options)


def _item(path: Path, when: datetime) -> Any:
    """Return a scene with all that its file would have to be opened for."""
    import pystac
    import rasterio
    from odc.geo.geom import box

    with rasterio.open(path) as file:
        crs, shape, transform = file.crs, file.shape, file.transform
        outline = box(*file.bounds, crs).to_crs("EPSG:4326")
    fields = {
        "proj:code": crs.to_string(),
        "proj:shape": list(shape),
        "proj:transform": list(transform),
    }
    schemas = [
        "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
        "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    ]
    bbox = list(outline.boundingbox)
    item = pystac.Item(path.stem, outline.json, bbox, when, fields, stac_extensions=schemas)
    band = {"raster:bands": [{"data_type": "uint16", "nodata": 0}]}
    tiff, roles = pystac.MediaType.COG, ["data"]
    item.add_asset("0", pystac.Asset(str(path), media_type=tiff, roles=roles, extra_fields=band))
    return item


ENGINES = {"l2view": l2view, "odc-stac": odc_stac}


def peak() -> float:
    """Return the most memory that this process held, in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def main(engine: str, folder: str, target: str, method: str) -> None:
    box = geobox(target)
    build = ENGINES[engine](Path(folder), box, method)
    for line in sys.stdin:
        place = line.strip()
        began = time.perf_counter()
        lazy = build()["0"].squeeze(drop=True)
        if place.endswith(".zarr"):
            lazy.reset_coords(drop=True).to_dataset(name="mosaic").to_zarr(place)
            image = None
        elif place == "array":
            image = np.empty(lazy.shape, lazy.dtype)
            lazy.data.store(image)
        else:
            image = lazy.compute().to_numpy()
        taken = time.perf_counter() - began
        assert lazy.shape == box.shape
        assert lazy.dtype == np.uint16
        if image is not None and place.endswith(".npy"):
            np.save(place, image)
        print(json.dumps([taken, peak()]), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with dask.config.set(scheduler="threads", num_workers=2):
        main(*sys.argv[1:5])
