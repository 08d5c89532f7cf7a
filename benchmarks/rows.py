"""Ten million rows of metadata: as a plain Zarr store, as one with indexes, and as Parquet."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import zarr
from numpy.typing import NDArray
from zarr.dtype import VariableLengthBytes
from zarr.storage import LocalStore

from l2view.index.commands import build_indexes

from .stores import TEXT

COUNT = 10_000_000
CHUNK = 100_000
COLLECTIONS = (
    "sentinel-2-l2a",
    "sentinel-2-l1c",
    "landsat-c2-l2",
    "modis-09A1",
    "viirs-l2",
    "sentinel-3-olci",
    "ascat-l2",
)
DTYPES = {
    "date": "datetime64[us]",
    "collection": "string",
    "cloud_cover": "float64",
    "xmin": "float64",
    "ymin": "float64",
    "xmax": "float64",
    "ymax": "float64",
    "group_path": "string",
    "bbox": VariableLengthBytes(),
}


def blocks(count: int) -> Iterator[dict[str, NDArray[np.generic] | list[str]]]:
    """Yield the columns of `CHUNK` rows at a time, dates roughly in row order."""
    random = np.random.default_rng(1)
    for start in range(0, count, CHUNK):
        rows = np.arange(start, min(start + CHUNK, count))
        seconds = rows * (10 * 365 * 86_400 / count) + random.uniform(-1e5, 1e5, len(rows))
        cover = random.uniform(0, 100, len(rows))
        cover[random.random(len(rows)) < 0.02] = np.nan
        west, south = random.uniform(-180, 178.5, len(rows)), random.uniform(-85, 83.5, len(rows))
        width = random.uniform(0.5, 1.5, len(rows))
        names = np.array(COLLECTIONS)[random.integers(0, len(COLLECTIONS), len(rows))]
        corners = (west, south, west + width, south + width)
        yield {
            "date": np.datetime64("2015-01-01", "us") + (seconds * 1e6).astype("m8[us]"),
            "collection": names,
            "cloud_cover": cover,
            **dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)),
            "group_path": np.array(
                [f"granules/{n}/{row:08d}" for n, row in zip(names, rows, strict=True)]
            ),
            "bbox": shapely.to_wkb(shapely.box(*corners)),
        }


def write(folder: Path, count: int = COUNT) -> None:
    """Write ``plain.zarr``, ``indexed.zarr`` and ``rows.parquet`` into `folder`."""
    meta = zarr.create_group(LocalStore(folder / "plain.zarr")).create_group("meta")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bytes have no v3 specification
        arrays = {
            name: meta.create_array(name, shape=(count,), chunks=(CHUNK,), dtype=dtype)
            for name, dtype in DTYPES.items()
        }
    writer = None
    start = 0
    for block in blocks(count):
        stop = start + len(block["date"])
        for name, values in block.items():
            texts = DTYPES[name] == "string"
            arrays[name][start:stop] = np.asarray(values).astype(TEXT) if texts else values
        cover = np.asarray(block["cloud_cover"])
        columns = block | {"cloud_cover": pa.array(cover, mask=np.isnan(cover))}
        table = pa.table(columns | {"bbox": pa.array(block["bbox"], pa.binary())})
        if writer is None:
            writer = pq.ParquetWriter(folder / "rows.parquet", table.schema, compression="zstd")
        writer.write_table(table)
        start = stop
    assert writer is not None
    writer.close()
    shutil.copytree(folder / "plain.zarr", folder / "indexed.zarr")
    build_indexes(folder / "indexed.zarr")


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else COUNT)
