"""Mosaics of scenes in two UTM zones: the time, the bytes and the memory that they take."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox, GeoboxTiles
from pyproj import Transformer
from rasterio.warp import transform_bounds
from zarr.storage import WrapperStore

import l2view
from l2view.granules.references import ArrayReferences
from l2view.ingest.granule import Entry, Granule
from l2view.ingest.options import ParseOptions
from l2view.ingest.parse import parse_granule
from l2view.ingest.writer import write_batch
from l2view.stores.open import SourceOptions, open_source
from l2view.stores.repository import open_repository

from .measure import Row, paired
from .mosaics_side import CHUNK, CRS, FIRST, NORTH, STEP, WEST, geobox

PEER = Path(__file__).parent / "peers-odc" / "bin" / "python"
SIDE = 4096
BLOCK = 512
REACH = SIDE * 10
"""The metres that a scene measures."""

ZONES = (32617, 32618)
OVERLAP = 6_180
"""How far the western scenes reach beyond the border, which runs askew to both zones' grids."""

COUNT = 10_000
"""The scenes of a large view, and the chunks of a large mosaic."""

LARGE_CRS = "EPSG:3035"
LARGE_WEST, LARGE_NORTH = 3_297_000, 4_234_000
LARGE = 50 * REACH
"""Where the large mosaic lies, around 10° E 52° N, and what it measures."""


def mosaics(folder: Path) -> Iterator[Row]:
    """Yield the rows of mosaics."""
    if not PEER.exists():
        raise SystemExit("odc-stac has an environment of its own: make bench-peers")
    write(folder)
    for target in ("20 m", "10 m"):
        for method in ("nearest", "bilinear"):
            yield _against_odc_stac(folder, target, method)
    yield _against_naive(folder)
    yield _bytes(folder)
    yield from _peaks(folder)
    yield _building(folder)


def write(folder: Path) -> None:
    """Write 4 × 4 scenes, half of them in each zone, and a collection of them."""
    (folder / "scenes").mkdir()
    paths = [folder / "scenes" / f"s{number:02d}.tif" for number in range(16)]
    for number, path in enumerate(paths):
        row, column = divmod(number, 4)
        zone = column // 2
        # The zones are each other's mirror image.
        border = WEST if zone else 1_000_000 - WEST + OVERLAP
        _scene(path, ZONES[zone], border + (column - 2) * REACH, NORTH + (2 - row) * REACH)

    def harvest(_: Any, url: str) -> dict[str, Any]:
        return {"datetime": FIRST + int(Path(url).stem[1:]) * STEP}

    report = l2view.ingest(paths, folder / "collection", harvest=harvest)
    assert report.added.count == len(paths), report


def _scene(path: Path, code: int, west: float, north: float) -> None:
    """Write a COG of hills, which compresses to two thirds."""
    y, x = np.mgrid[:SIDE, :SIDE].astype("float32") * 10
    hills = 3000 + 900 * np.sin((x + west % 50_000) / 7000) * np.cos((y - north % 50_000) / 9000)
    noise = np.random.default_rng(int(path.stem[1:])).standard_normal(hills.shape, "float32")
    options = {
        "crs": f"EPSG:{code}",
        "transform": Affine(10, 0, west, 0, -10, north),
        "nodata": 0,
        "compress": "DEFLATE",
        "predictor": 2,
        "blocksize": BLOCK,
        "overview_count": 3,
        "overview_resampling": "average",
    }
    with rasterio.open(path, "w", "COG", SIDE, SIDE, 1, dtype="uint16", **options) as file:
        file.write((hills + 40 * noise).astype("uint16"), 1)


class Side:
    """A process that makes mosaics, one at a time."""

    def __init__(self, engine: str, folder: Path, target: str, method: str) -> None:
        python = str(PEER) if engine == "odc-stac" else sys.executable
        script = str(Path(__file__).with_name("mosaics_side.py"))
        command = [python, script, engine, str(folder), target, method]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def run(self, place: Path | str = "") -> tuple[float, float]:
        """Return the seconds of one, and the most MiB that the process held so far."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(place, file=self.process.stdin, flush=True)
        taken, peak = json.loads(self.process.stdout.readline())
        return taken, peak

    def image(self, folder: Path) -> NDArray[np.uint16]:
        """Return one."""
        place = folder / "image.npy"
        self.run(place)
        found: NDArray[np.uint16] = np.load(place)
        return found


@contextmanager
def side(engine: str, folder: Path, target: str, method: str) -> Iterator[Side]:
    """Run a process that makes mosaics."""
    made = Side(engine, folder, target, method)
    with made.process:  # which ends where nothing more comes
        yield made


def _against_odc_stac(folder: Path, target: str, method: str) -> Row:
    """Two processes that take turns."""
    asked = (folder, target, method)
    with side("l2view", *asked) as ours, side("odc-stac", *asked) as theirs:
        here, there = ours.image(folder), theirs.image(folder)
        assert ((here > 0) == (there > 0)).mean() > 0.99
        # odc-stac leaves overviews at 1.999 pixels for one, and GDAL rounds positions otherwise. A
        # shift by a pixel would make it 20, and 40 where there are no overviews.
        assert np.abs(here.astype("int32") - there).mean() < 10
        what = f"mosaic of 8,192 × 8,192 at {target}, {method} ÷ odc-stac"
        return paired(what, ours.run, theirs.run, 0.9, runs=2)


def _against_naive(folder: Path) -> Row:
    """A merge that looks up every pixel in every chunk that it may come from."""
    with side("l2view", folder, "20 m", "nearest") as process:
        here = process.image(folder)
        ours = statistics.median(process.run()[0] for _ in range(3))
    began = time.perf_counter()
    there = naive(folder, geobox("20 m"))
    theirs = time.perf_counter() - began
    assert (here == there).mean() > 0.99
    what = "mosaic of 8,192 × 8,192 at 20 m, nearest ÷ a naive merge"
    return Row(what, ours / theirs, 0.1, ours=ours, theirs=theirs)


def naive(folder: Path, target: GeoBox) -> NDArray[np.uint16]:
    """Merge scenes at an overview, each chunk of the target by itself, on two threads."""
    tiles = GeoboxTiles(target, (CHUNK, CHUNK))
    image = np.zeros(target.shape, "uint16")
    scenes = sorted((folder / "scenes").glob("*.tif"))
    places = list(np.ndindex(*tiles.shape.yx))
    with ThreadPoolExecutor(2) as pool:
        fill = partial(_fill, scenes=scenes)
        chunks = pool.map(fill, [tiles[place] for place in places])
        for (row, column), chunk in zip(places, chunks, strict=True):
            height, width = chunk.shape
            top, left = row * CHUNK, column * CHUNK
            image[top : top + height, left : left + width] = chunk
    return image


def _fill(target: GeoBox, scenes: list[Path]) -> NDArray[np.uint16]:
    """Merge one chunk of the target."""
    chunk = np.zeros(target.shape, "uint16")
    rows, columns = np.indices(chunk.shape)
    x, y = target.affine * (columns + 0.5, rows + 0.5)
    outline = shapely.box(*target.boundingbox)
    for path in scenes:
        with rasterio.open(path, overview_level=0) as file:
            if not _outline(file.crs, file.bounds).intersects(outline):
                continue
            back = transformer(CRS, file.crs)
            for _, window in file.block_windows(1):
                if not _outline(file.crs, file.window_bounds(window)).intersects(outline):
                    continue
                block = file.read(1, window=window)
                column, row = ~file.window_transform(window) * back.transform(x, y)
                column, row = np.floor(column).astype(int), np.floor(row).astype(int)
                inside = (row >= 0) & (row < window.height) & (column >= 0)
                wanted = inside & (column < window.width) & (chunk == 0)
                chunk[wanted] = block[row[wanted], column[wanted]]
    return chunk


@cache
def transformer(source: Any, target: Any) -> Transformer:
    """Return what takes positions from one CRS to another; making it takes long."""
    return Transformer.from_crs(source, target, always_xy=True)


@cache
def _outline(crs: Any, bounds: tuple[float, ...]) -> shapely.Polygon:
    """Return where a rectangle of a scene lies in the target's CRS, as a box."""
    return shapely.box(*transform_bounds(crs, CRS, *bounds))


class Counting(WrapperStore[Any]):
    """A store that counts the bytes of chunks."""

    nbytes = 0

    def get_sync(self, key: str, *arguments: Any, **options: Any) -> Any:
        return self._counted(key, super().get_sync(key, *arguments, **options))

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        return self._counted(key, await super().get(key, *arguments, **options))

    def _counted(self, key: str, found: Any) -> Any:
        if found is not None and "/c/" in key:
            self.nbytes += len(found)
        return found


def _bytes(folder: Path) -> Row:
    """What is fetched, and what of the first overview lies within the target."""
    store = Counting(open_source(folder / "collection", SourceOptions(authorize=True)).store)
    view = l2view.open(store, order_by="datetime")
    store.nbytes = 0
    mosaic = l2view.mosaic(view, like=geobox("20 m"), bands="0", chunks=(CHUNK, CHUNK))
    with dask.config.set(scheduler="threads", num_workers=2):
        mosaic["0"].compute()
    assert store.nbytes
    held = touching(folder, geobox("20 m"))
    what = "bytes fetched for a mosaic ÷ bytes of the chunks that touch it, at its scale"
    return Row(what, store.nbytes / held, 1.05)


def touching(folder: Path, target: GeoBox) -> int:
    """Return the bytes of the first overview's blocks that touch the target."""
    within, total = shapely.box(*target.boundingbox), 0
    for path in sorted((folder / "scenes").glob("*.tif")):
        with rasterio.open(path, overview_level=0) as smaller, rasterio.open(path) as file:
            forward = transformer(file.crs, CRS).transform
            for (row, column), window in smaller.block_windows(1):
                edge = shapely.box(*smaller.window_bounds(window)).segmentize(200)
                there = shapely.transform(edge, forward, interleaved=False)
                if shapely.intersects(there, within):
                    name = f"BLOCK_SIZE_{column}_{row}"
                    total += int(file.get_tag_item(name, "TIFF", bidx=1, ovr=0))
    return total


def _peaks(folder: Path) -> Iterator[Row]:
    """The most memory that a process holds that makes 400 million pixels."""
    # compute() holds all chunks of Dask's beside the image that it makes of them.
    places = {
        "written to Zarr": (folder / "mosaic.zarr", 1536),
        "stored into an array": ("array", 1536),
        "by compute()": ("", 2560),
    }
    for name, (place, most) in places.items():
        with side("l2view", folder, "8 m", "nearest") as ours:
            _, peak = ours.run(place)
        what = f"peak memory of a process, mosaic of 20,000 × 20,000 {name}"
        yield Row(what, peak, most, " MiB")


def _building(folder: Path) -> Row:
    """The call alone, on a view that nothing is known of yet."""
    store = write_many(folder)
    corners = (LARGE_WEST, LARGE_NORTH - LARGE, LARGE_WEST + LARGE, LARGE_NORTH)
    target = GeoBox.from_bbox(corners, LARGE_CRS, resolution=20)
    took = []
    for _ in range(3):
        view = l2view.open(store, order_by="datetime")
        began = time.perf_counter()
        mosaic = l2view.mosaic(view, like=target, bands="0", chunks=(CHUNK, CHUNK))
        took.append(time.perf_counter() - began)
        assert mosaic["0"].data.npartitions == COUNT
    return Row(
        "building a mosaic of 10,000 scenes on 10,000 chunks", statistics.median(took), 5, " s"
    )


def write_many(folder: Path) -> Path:
    """Write the metadata of scenes without chunks, on 50 × 50 places, four times each."""
    reading = ParseOptions(defaults={"datetime": FIRST})
    first = parse_granule(Entry.of_file((folder / "scenes" / "s00.tif").as_uri()), reading)
    assert isinstance(first, Granule), first
    granules = []
    for number in range(COUNT):
        row, column = divmod(number % 2500, 50)
        code, west, north = _place(LARGE_WEST + column * REACH, LARGE_NORTH - row * REACH)
        corners = transform_bounds(code, 4326, west, north - REACH, west + REACH, north)
        said = {"model_tiepoint": [0.0, 0.0, 0.0, west, north, 0.0], "projected_type": code}
        fields = {
            "id": f"scene_{number:05d}",
            "datetime": FIRST + number * STEP,
            "bbox": shapely.to_wkb(shapely.box(*corners)),
        }
        arrays = tuple(_elsewhere(array, said) for array in first.references.arrays)
        references = replace(first.references, arrays=arrays, checksums={})
        granules.append(Granule({**first.row, **fields}, references))
    repository = open_repository(folder / "many")
    for start in range(0, COUNT, 1000):
        written = write_batch(repository, granules[start : start + 1000])
        assert len(written.added) == 1000, written.failed[:1]
    return folder / "many"


def _place(x: float, y: float) -> tuple[int, float, float]:
    """Return a place's UTM zone, and where it is in that."""
    longitude, _ = transformer(LARGE_CRS, 4326).transform(x, y)
    code = 32631 + int(longitude // 6)
    west, north = transformer(LARGE_CRS, code).transform(x, y)
    return code, round(west, -1), round(north, -1)


def _elsewhere(array: ArrayReferences, said: dict[str, Any]) -> ArrayReferences:
    """Return an array without chunks that lies elsewhere, where it says where it lies."""
    attributes = array.document["attributes"]
    placed = {name: value for name, value in said.items() if name in attributes}
    document = {**array.document, "attributes": {**attributes, **placed}}
    count = len(array.locations)
    nothing = np.zeros(count, "uint64")
    return ArrayReferences(array.path, document, [""] * count, nothing, nothing)
