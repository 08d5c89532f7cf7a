"""Write the collections in this folder, their originals and what independent readers say of them.

It ran once, with l2view as it was at commit c4e7f5c (store format 1, Icechunk 2.3), from a
checkout of that commit:

    PYTHONPATH=CHECKOUT:tests python tests/store_format/write.py

Later versions must read what that version wrote, so nobody runs it again to make a test pass.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zipfile import ZIP_DEFLATED, ZipFile

import icechunk
import netCDF4
import numpy as np
import originals
import rasterio
import shapely
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

import l2view

ROWS: dict[str, dict[str, Any]] = {
    "swath_a": {
        "product": "swath",
        "cloud_cover": 12.5,
        "pass_number": 7,
        "daytime": True,
        "note": "ü",
        "reviewed": np.datetime64("2025-07-01T12:00:00.000001", "us"),
        "token": b"\x00\xff",
    },
    "swath_b": {"product": "swath", "cloud_cover": 80.0, "pass_number": -3, "daytime": False},
    "swath_c": {"product": "swath", "cloud_cover": 40.0, "daytime": True, "note": "c"},
    "swath_d": {"product": "swath", "cloud_cover": 41.0},
    "swath_e": {"product": "swath", "cloud_cover": 5.0, "pass_number": 9},
    "scene_a": {
        "product": "scene",
        "cloud_cover": 0.0,
        "pass_number": 2**60,
        "datetime": np.datetime64("2025-06-20T11:00:00"),
    },
    "scene_b": {"product": "scene", "note": "b", "datetime": np.datetime64("2025-06-21T11:00:00")},
    "track": {
        "product": "track",
        "daytime": False,
        "datetime": np.datetime64("2025-06-30", "s"),
        "bbox": shapely.union(shapely.box(170, -10, 180, 10), shapely.box(-180, -10, -170, 10)).wkb,
    },
}
"""Fields of the caller's own, of every type that a field has; what isn't said is NULL."""

SWATHS = {"swath_a": (12, 4, 0), "swath_b": (10, 4, 20), "swath_c": (9, 9, 40)}
SWATHS |= {"swath_d": (7, 4, 60), "swath_e": (11, 3, 100)}
"""Rows, rows of a chunk, and the westernmost longitude."""


def write_swath(path: Path, *, revision: int = 0) -> None:
    rows, chunk_rows, west = SWATHS[path.stem]
    number = list(SWATHS).index(path.stem)
    with netCDF4.Dataset(path, "w") as file:
        file.title = f"swath {number}, revision {revision}"
        file.time_coverage_start = f"2025-06-{1 + number:02d}T10:00:00Z"
        file.time_coverage_end = f"2025-06-{1 + number:02d}T10:05:00Z"
        file.createDimension("row", rows)
        file.createDimension("column", 8)
        dims = ("row", "column")
        lat = file.createVariable("lat", "f4", dims, zlib=True, chunksizes=(chunk_rows, 8))
        lat.units = "degrees_north"
        lat[:] = 20 + np.linspace(0, 5, rows)[:, None] + np.linspace(0, 0.5, 8)
        lon = file.createVariable("lon", "f4", dims, zlib=True, chunksizes=(chunk_rows, 8))
        lon.units = "degrees_east"
        lon[:] = west + np.linspace(0, 5, 8) + np.zeros((rows, 1))
        sst = file.createVariable(
            "sst", "i2", dims, zlib=True, shuffle=True, chunksizes=(chunk_rows, 8), fill_value=-999
        )
        sst.scale_factor, sst.add_offset, sst.units = 0.01 * (1 + number), 273.15, "K"
        sst.coordinates = "lat lon"
        sst.set_auto_maskandscale(False)
        values = np.arange(rows * 8, dtype="i2").reshape(rows, 8) + 100 * number + revision
        values[::3, number % 8] = -999
        sst[:] = values
        flag = file.createGroup("quality").createVariable("flag", "u1", dims, chunksizes=(rows, 8))
        flag[:] = values % 4
        station = file.createVariable("station", str, ())
        station[...] = f"station {number}"


def write_scene(path: Path) -> None:
    number = ("scene_a", "scene_b").index(path.stem)
    values = np.arange(40 * 48, dtype="u2").reshape(40, 48) + 1 + 5000 * number
    values[:5, :7] = 0
    west = 500_000 + 600_000 * number
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": 48,
        "height": 40,
        "count": 1,
        "dtype": "uint16",
        "nodata": 0,
        "crs": "EPSG:32631",
        "transform": from_origin(west, 5_000_000, 60, 60),
        "tiled": True,
        "blockxsize": 16,
        "blockysize": 16,
        "compress": "deflate",
        "predictor": 2,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(values, 1)
        file.build_overviews([2], rasterio.enums.Resampling.nearest)


def write_track(path: Path) -> None:
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("time", None)
        file.createVariable("height", "f8", ("time",))[:] = np.linspace(-1, 1, 9)
        file["height"].units = "m"


def write_original(path: Path, **options: Any) -> None:
    kind = path.stem.partition("_")[0]
    {"swath": write_swath, "scene": write_scene, "track": write_track}[kind](path, **options)


def harvest(group: Any, url: str) -> dict[str, Any]:
    return ROWS[Path(url).stem]


def write_collection(store: Path, granules: Path, layout: Any) -> None:
    """Write two batches with their indexes and a tag after each; a granule is deleted between."""
    options: dict[str, Any] = {"layout": layout, "harvest": harvest, "strict": True}
    write_original(granules / "swath_b.nc", revision=1)
    first = [f"{name}.nc" for name in ("swath_a", "swath_d", "swath_b")] + ["scene_a.tif"]
    report = l2view.ingest([f"{originals.URL}/{name}" for name in first], store, **options)
    assert report.added.count == 4
    l2view.Collection(store).index()
    l2view.Collection(store).index(["cloud_cover", "bbox"])
    tag(store, "first")
    assert l2view.Collection(store).delete("id = 'swath_d'") == 1
    write_original(granules / "swath_b.nc")
    second = ["track.nc", "scene_b.tif", "swath_c.nc", "swath_b.nc"]
    # So that few rows get an index of rows that came later.
    with patch("l2view.ingest.index.LEAST", 1), patch("l2view.ingest.index.GROWTH", 0):
        report = l2view.ingest(
            [f"{originals.URL}/{name}" for name in second], store, on_conflict="replace", **options
        )
    assert (report.added.count, report.replaced.count) == (3, 1)
    tag(store, "second")


def tag(store: Path, name: str) -> None:
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(store)))
    repository.create_tag(name, snapshot_id=repository.lookup_branch("main"))


def arrays_of(path: Path) -> dict[str, Any]:
    """Return what netCDF4 or rasterio reads: stored values, and with ``decoded:`` real ones."""
    found: dict[str, Any] = {}
    if path.suffix == ".tif":
        with rasterio.open(path) as file:
            found["0"] = file.read(1)
        with rasterio.open(path, overview_level=0) as file:
            found["1"] = file.read(1)
        return found
    with netCDF4.Dataset(path) as file:
        quality = file.groups["quality"].variables if file.groups else ()
        names = [*file.variables, *(f"quality/{name}" for name in quality)]
        for name in names:
            variable = file[name]
            if variable.dtype is str:
                found[name] = np.array(variable[...])
                continue
            found[f"decoded:{name}"] = np.ma.filled(variable[...].astype("f8"), np.nan)
            variable.set_auto_maskandscale(False)
            found[name] = variable[...]
    return found


def fields_of(path: Path) -> dict[str, Any]:
    """Return a granule's row as plain JSON: times as ISO 8601, bytes as hexadecimal digits."""
    names = {name for row in ROWS.values() for name in row} - {"bbox"}
    row = {name: ROWS[path.stem].get(name) for name in sorted(names)}
    for name in ("reviewed", "datetime"):
        row[name] = None if row[name] is None else str(row[name])
    row["token"] = row["token"] and row["token"].hex()
    row |= {"id": path.stem, "end_datetime": None, "bounds": None}
    if path.stem == "track":
        row["bounds"] = [170, -10, -170, 10]
    elif path.suffix == ".nc":
        with netCDF4.Dataset(path) as file:
            row["datetime"] = file.time_coverage_start.removesuffix("Z")
            row["end_datetime"] = file.time_coverage_end.removesuffix("Z")
            lon, lat = file["lon"][:], file["lat"][:]
            row["bounds"] = [float(v) for v in (lon.min(), lat.min(), lon.max(), lat.max())]
    else:
        with rasterio.open(path) as file:
            row["bounds"] = list(transform_bounds(file.crs, "EPSG:4326", *file.bounds))
    return row


def main(folder: Path) -> None:
    icechunk.set_logs_filter("error")
    granules = folder / "granules"
    granules.mkdir()
    paths = [granules / f"{name}.{'tif' if 'scene' in name else 'nc'}" for name in ROWS]
    for path in paths:
        write_original(path)
    with originals.serve(folder), tempfile.TemporaryDirectory() as scratch:
        for layout in ("packed", "groups"):
            store = Path(scratch) / layout
            write_collection(store, granules, layout)
            with ZipFile(folder / f"{layout}.zip", "w", ZIP_DEFLATED) as archive:
                for file in sorted(store.rglob("*")):
                    archive.write(file, file.relative_to(store))
    rows = [fields_of(path) for path in paths]
    (folder / "rows.json").write_text(json.dumps(rows, indent=1) + "\n")
    arrays = {
        f"{path.stem}/{name}": values for path in paths for name, values in arrays_of(path).items()
    }
    np.savez_compressed(folder / "arrays.npz", **arrays)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
        here = Path(__file__).parent
        shutil.copytree(scratch, here, dirs_exist_ok=True)
