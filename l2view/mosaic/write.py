"""Mosaics as files: Cloud-Optimized GeoTIFFs, and georeferenced Zarr groups."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import rasterio
import rasterio.shutil
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.windows import Window
from zarr_cm import geo_proj, spatial

from l2view.errors import ExportError
from l2view.mosaic.array import BandArray
from l2view.mosaic.plan import MosaicPlan
from l2view.progress import ReportProgress, show_progress
from l2view.regrid.warp import RADIUS

TIFFS = (".tif", ".tiff")
SUFFIXES = (*TIFFS, ".zarr")

BLOCK = 512  # the side of a TIFF's blocks

WRITTEN_BY = "l2view:mosaic"
SOFTWARE = "TIFFTAG_SOFTWARE"
"""The attribute of a group, and the tag of a TIFF, that say that they are a mosaic."""


def write_mosaic(
    plan: MosaicPlan,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: bool | ReportProgress = False,
) -> None:
    """Write a mosaic to a file, a few of its chunks at a time.

    The `path` ends in ``.tif`` for a Cloud-Optimized GeoTIFF, in ``.zarr`` for a Zarr group. With
    `overwrite` a mosaic that is there is replaced once this one is complete.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise ExportError(f"{path} is no name for a mosaic: it ends in {' or '.join(SUFFIXES)}")
    if suffix in TIFFS:
        _require_one_image(plan, target)
    if target.exists() and overwrite:
        _require_mosaic(target)
    elif target.exists():
        raise ExportError(
            f"{path} is there already; overwrite=True, on the command line --overwrite, replaces it"
        )
    if not target.parent.is_dir():
        raise ExportError(f"there is no folder {target.parent}")
    write = _write_tiff if suffix in TIFFS else _write_zarr
    with _replacing(target) as partial, show_progress(progress, "chunks") as report:
        write(plan, partial, report)


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Give a path beside a file, which replaces the file once it is complete."""
    partial = target.with_name(f".{target.stem}-{uuid4().hex[:8]}{target.suffix}")
    try:
        yield partial
        if target.is_dir():  # which nothing replaces at once
            old = partial.with_name(f"{partial.name}.old")
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.replace(target)
    finally:
        if partial.is_dir() and not partial.is_symlink():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def _require_mosaic(target: Path) -> None:
    """Raise an ExportError where what is to be replaced isn't a mosaic that was written here."""
    if target.is_dir():
        document = target / "zarr.json"
        is_mosaic = document.is_file() and WRITTEN_BY in zarr.open_group(target, mode="r").attrs
    else:
        with rasterio.open(target) as file:
            is_mosaic = file.tags().get(SOFTWARE) == WRITTEN_BY
    if not is_mosaic:
        raise ExportError(f"{target} is no mosaic of l2view's, and isn't overwritten: remove it")


def _require_one_image(plan: MosaicPlan, target: Path) -> None:
    """Raise an ExportError where a mosaic isn't one image of one data type, as a TIFF is."""
    if len(plan.groups) > 1:
        raise ExportError(
            f"{target.name} has room for one image, and the mosaic has {len(plan.groups):,} of "
            f"them along {plan.layers.dimension}: write a .zarr, or search for less"
        )
    if len({(band.dtype, str(band.nodata)) for band in plan.bands}) > 1:
        bands = ", ".join(f"{b.name} ({b.dtype}, {b.nodata})" for b in plan.bands)
        raise ExportError(
            f"the bands of {target.name} have one data type and fill value, and these differ: "
            f"{bands}; pass dtype= and nodata=, write a .zarr, or a file for each"
        )


def _compute(
    plan: MosaicPlan, report: ReportProgress
) -> Iterator[tuple[int, int, tuple[int, ...], NDArray[Any]]]:
    """Yield all chunks, as many computed at once as there are processors.

    Each with the number of its band and group, and its row and column among the chunks.
    """
    tiles: Any = plan.tiles
    grid, bands = np.ndindex(*tiles.shape.yx), range(len(plan.bands))
    jobs = ((band, group, tile) for tile in grid for group in plan.groups for band in bands)
    total = len(bands) * len(plan.groups) * tiles.shape.y * tiles.shape.x
    workers = os.cpu_count() or 1
    running: dict[Future[NDArray[Any]], tuple[int, int, tuple[int, ...]]] = {}
    report(0, total)
    with ThreadPoolExecutor(workers, "l2view-mosaic") as threads:
        try:
            for done in range(1, total + 1):
                for band, group, tile in islice(jobs, 2 * workers - len(running)):
                    future = threads.submit(plan.bands[band].window, tiles[tile], group)
                    running[future] = band, group, tile
                future = next(iter(wait(running, return_when=FIRST_COMPLETED).done))
                yield *running.pop(future), future.result()
                report(done, total)
        finally:
            for future in running:
                future.cancel()


def _write_tiff(plan: MosaicPlan, path: Path, report: ReportProgress) -> None:
    """Write a Cloud-Optimized GeoTIFF, by way of a TIFF that is written block by block."""
    height, width = plan.grid.shape
    band = plan.bands[0]
    assert plan.grid.crs is not None
    plain = path.with_suffix(".part.tif")
    options: dict[str, Any] = {
        "dtype": band.dtype.name,
        "crs": rasterio.crs.CRS.from_wkt(plan.grid.crs.to_wkt()),
        "transform": plan.grid.transform,
        "nodata": None if band.reduce == "count" else band.nodata,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "bigtiff": "if_safer",
        "compress": "deflate",
        "zlevel": 1,
    }
    try:
        with rasterio.open(plain, "w", "GTiff", width, height, len(plan.bands), **options) as file:
            file.update_tags(**{SOFTWARE: WRITTEN_BY})
            file.descriptions = [described.name for described in plan.bands]
            for number, _, tile, values in _compute(plan, report):
                left, top = tile[1] * plan.chunks[1], tile[0] * plan.chunks[0]
                file.write(values, number + 1, window=Window(left, top, *values.shape[::-1]))
        rasterio.shutil.copy(
            plain,
            path,
            driver="COG",
            compress="deflate",
            predictor="yes",
            blocksize=BLOCK,
            bigtiff="if_safer",
            num_threads="all_cpus",
            overview_resampling="average" if band.resampling in RADIUS else "nearest",
        )
    finally:
        plain.unlink(missing_ok=True)


def _write_zarr(plan: MosaicPlan, path: Path, report: ReportProgress) -> None:
    """Write a Zarr v3 group as xarray writes it, with the georeference of its arrays."""
    import dask.array as da

    def empty(band: BandArray, chunks: tuple[int, ...]) -> Any:
        return da.empty(band.shape, dtype=band.dtype, chunks=chunks)

    encoding: dict[str, Any] = {
        band.name: {"fill_value": band.nodata} for band in plan.bands if band.dtype.kind in "iu"
    }
    plan.to_dataset(empty).to_zarr(
        path, compute=False, zarr_format=3, consolidated=False, encoding=encoding, mode="w-"
    )
    group = zarr.open_group(path, mode="r+")
    group.attrs.update(_georeference(plan.grid) | {WRITTEN_BY: {"granules": plan.layers.count}})
    arrays: list[Any] = [group[band.name] for band in plan.bands]
    for number, index, tile, values in _compute(plan, report):
        sides = zip(tile, plan.chunks, values.shape, strict=True)
        chunk = tuple(slice(n * length, n * length + size) for n, length, size in sides)
        arrays[number][chunk if plan.layers.labels is None else (index, *chunk)] = values


def _georeference(grid: GeoBox) -> dict[str, Any]:
    """Return attributes with the transform and CRS of a grid (conventions spatial and proj)."""
    assert grid.crs is not None
    crs: Any = {"code": f"EPSG:{grid.crs.epsg}"} if grid.crs.epsg else {"wkt2": grid.crs.to_wkt()}
    extent: Any = spatial.create_convention_attrs(
        dimensions=["y", "x"],
        transform=list(grid.transform[:6]),
        bbox=list(grid.boundingbox),
        shape=list(grid.shape),
    )
    projection: Any = geo_proj.create_convention_attrs(**crs)
    conventions = [*extent["zarr_conventions"], *projection["zarr_conventions"]]
    return {**extent, **projection, "zarr_conventions": conventions}
