"""Mosaics as files: Cloud-Optimized GeoTIFFs, and Zarr groups that say where they lie."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
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
from odc.geo.geobox import GeoBox, GeoboxTiles
from rasterio.windows import Window
from zarr_cm import geo_proj, spatial

from l2view.errors import ExportError
from l2view.export.progress import Tell, told
from l2view.mosaic.array import BandArray
from l2view.mosaic.dataset import Mosaic, dataset
from l2view.regrid.warp import RADIUS

TIFFS = (".tif", ".tiff")
SUFFIXES = (*TIFFS, ".zarr")

BLOCK = 512
"""The side of a TIFF's blocks."""

MADE = "l2view:mosaic"
SOFTWARE = "TIFFTAG_SOFTWARE"
"""The attribute of a group, and the tag of a TIFF, that say what wrote them."""

type Put = Callable[[int, int, tuple[int, int], NDArray[Any]], None]
"""Writes a chunk: by its band, group, place among the chunks, and values."""


def write(
    made: Mosaic, path: str | os.PathLike[str], *, overwrite: bool = False, progress: bool | Tell
) -> None:
    """Write a mosaic to a file, a few of its chunks at a time.

    Parameters
    ----------
    made
        The mosaic.
    path
        Where to: ``….tif`` for a Cloud-Optimized GeoTIFF, ``….zarr`` for a Zarr group.
    overwrite
        Whether what is there already makes way, once the mosaic is whole.
    progress
        Whether to draw a bar; or what is told instead of the chunks that are done.

    Raises
    ------
    ExportError
        Where it can't be written so, or something is there.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise ExportError(f"{path} is no name for a mosaic: it ends in {' or '.join(SUFFIXES)}")
    if target.suffix.lower() in TIFFS:
        _require_one_image(made, target)
    if target.exists() and overwrite:
        _require_ours(target)
    elif target.exists():
        raise ExportError(
            f"{path} is there already; overwrite=True, on the command line --overwrite, replaces it"
        )
    if not target.parent.is_dir():
        raise ExportError(f"there is no folder {target.parent}")
    with _beside(target) as partial, told(progress, "chunks") as tell:
        (_write_tiff if target.suffix.lower() in TIFFS else _write_zarr)(made, partial, tell)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give a place beside a file, which takes the file's own once it is whole."""
    partial = target.with_name(f".{target.stem}-{uuid4().hex[:8]}{target.suffix}")
    try:
        yield partial
        if target.is_dir():  # which nothing takes the place of at once
            old = partial.with_name(f"{partial.name}.old")
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.replace(target)
    finally:
        _remove(partial)


def _require_ours(target: Path) -> None:
    """Raise where what an image is to take the place of is none that was written here.

    Raises
    ------
    ExportError
        Saying so.
    """
    if target.is_dir():
        ours = (target / "zarr.json").is_file() and MADE in zarr.open_group(target, mode="r").attrs
    else:
        with rasterio.open(target) as file:
            ours = file.tags().get(SOFTWARE) == MADE
    if not ours:
        raise ExportError(f"{target} is no mosaic of l2view's, and isn't overwritten: remove it")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _require_one_image(made: Mosaic, target: Path) -> None:
    """Raise where a mosaic isn't one image of one data type, as a TIFF is.

    Raises
    ------
    ExportError
        Saying what to write instead.
    """
    if made.labels is not None and len(made.labels) > 1:
        raise ExportError(
            f"{target.name} has room for one image, and the mosaic has {len(made.labels):,} of "
            f"them along {made.dimension}: write a .zarr, or search for less"
        )
    kinds = {(band.dtype, str(band.nodata)) for band in made.bands}
    if len(kinds) > 1:
        told = ", ".join(f"{b.name} ({b.dtype}, {b.nodata})" for b in made.bands)
        raise ExportError(
            f"the bands of {target.name} have one data type and fill value, and these differ: "
            f"{told}; pass dtype= and nodata=, write a .zarr, or a file for each"
        )


def _computed(made: Mosaic, tell: Tell, put: Put) -> None:
    """Compute all chunks, as many at once as there are processors, and write them."""
    tiles = GeoboxTiles(made.grid, made.chunks)
    groups = range(1 if made.labels is None else len(made.labels))
    jobs = (
        (band, group, place)
        for place in np.ndindex(*tiles.shape.yx)
        for group in groups
        for band in range(len(made.bands))
    )
    total = tiles.shape.y * tiles.shape.x * len(groups) * len(made.bands)

    def window(place: tuple[int, int]) -> GeoBox:
        found = tiles[place]
        assert isinstance(found, GeoBox)
        return found

    done, at_once = 0, os.cpu_count() or 1
    tell(0, total)
    with ThreadPoolExecutor(at_once, "l2view-mosaic") as threads:

        def begin(job: tuple[int, int, Any]) -> None:
            band, group, place = job
            found = threads.submit(made.bands[band].window, window(place), group)
            running[found] = job

        running: dict[Future[NDArray[Any]], tuple[int, int, Any]] = {}
        try:
            for job in islice(jobs, 2 * at_once):
                begin(job)
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    band, group, place = running.pop(future)
                    put(band, group, place, future.result())
                    for job in islice(jobs, 1):
                        begin(job)
                    done += 1
                    tell(done, total)
        finally:
            for future in running:
                future.cancel()


def _write_tiff(made: Mosaic, path: Path, tell: Tell) -> None:
    """Write a Cloud-Optimized GeoTIFF, by way of a TIFF that is written block by block."""
    height, width = made.grid.shape
    first = made.bands[0]
    assert made.grid.crs is not None
    plain = path.with_suffix(".part.tif")
    options: dict[str, Any] = {
        "crs": rasterio.crs.CRS.from_wkt(made.grid.crs.to_wkt()),
        "transform": made.grid.transform,
        "nodata": None if first.reduce == "count" else first.nodata,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "bigtiff": "if_safer",
        "compress": "deflate",
        "zlevel": 1,
    }
    count, dtype = len(made.bands), first.dtype.name
    try:
        with rasterio.open(plain, "w", "GTiff", width, height, count, dtype=dtype, **options) as f:
            f.update_tags(**{SOFTWARE: MADE})
            for number, band in enumerate(made.bands, start=1):
                f.set_band_description(number, band.name)

            def put(band: int, group: int, place: tuple[int, int], values: NDArray[Any]) -> None:
                top, left = (at * chunk for at, chunk in zip(place, made.chunks, strict=True))
                window = Window(left, top, values.shape[1], values.shape[0])
                f.write(values, band + 1, window=window)

            _computed(made, tell, put)
        rasterio.shutil.copy(
            plain,
            path,
            driver="COG",
            compress="deflate",
            predictor="yes",
            blocksize=BLOCK,
            bigtiff="if_safer",
            num_threads="all_cpus",
            overview_resampling="average" if first.resampling in RADIUS else "nearest",
        )
    finally:
        plain.unlink(missing_ok=True)


def _write_zarr(made: Mosaic, path: Path, tell: Tell) -> None:
    """Write a Zarr v3 group as xarray writes it, with what says where its arrays lie."""
    import dask.array as da

    def empty(band: BandArray, chunks: tuple[int, ...]) -> Any:
        return da.empty(band.shape, dtype=band.dtype, chunks=chunks)

    told = dataset(made, empty)
    encoding: dict[str, Any] = {
        band.name: {"fill_value": band.nodata} for band in made.bands if band.dtype.kind in "iu"
    }
    told.to_zarr(
        path, compute=False, zarr_format=3, consolidated=False, encoding=encoding, mode="w-"
    )
    group = zarr.open_group(path, mode="r+")
    group.attrs.update(placing(made.grid) | {MADE: {"granules": made.count}})
    arrays = [group[band.name] for band in made.bands]

    def put(band: int, at: int, place: tuple[int, int], values: NDArray[Any]) -> None:
        array: Any = arrays[band]
        ends = zip(place, made.chunks, values.shape, strict=True)
        here = tuple(slice(n * chunk, n * chunk + length) for n, chunk, length in ends)
        array[here if made.labels is None else (at, *here)] = values

    _computed(made, tell, put)


def placing(grid: GeoBox) -> dict[str, Any]:
    """Return the attributes that say where arrays on a grid lie (conventions spatial and proj)."""
    assert grid.crs is not None
    code = f"EPSG:{grid.crs.epsg}" if grid.crs.epsg else None
    crs: Any = {"code": code} if code else {"wkt2": grid.crs.to_wkt()}
    box = grid.boundingbox
    where: Any = spatial.create_convention_attrs(
        dimensions=["y", "x"],
        transform=list(grid.transform[:6]),
        bbox=[box.left, box.bottom, box.right, box.top],
        shape=list(grid.shape),
    )
    projection: Any = geo_proj.create_convention_attrs(**crs)
    conventions = [*where["zarr_conventions"], *projection["zarr_conventions"]]
    return {**where, **projection, "zarr_conventions": conventions}
