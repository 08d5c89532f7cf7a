"""The rows and columns of each granule's arrays that touch a place.

They are found out when a granule is first asked for, from its latitudes and longitudes, its axes,
or its transform; and then hold for all of its arrays along the same dimensions.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import shapely
import zarr
from affine import Affine
from numpy.typing import NDArray
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding

from l2view.arrays.cf import read_floats
from l2view.arrays.encoding import ArrayEncoding
from l2view.errors import L2ViewWarning, warn
from l2view.geolocation.coordinates import are_axes, distance, image_axes, is_overview, pairs
from l2view.geolocation.geotiff import placement
from l2view.geolocation.mappings import crs_of_mapping
from l2view.geolocation.touching import (
    NOTHING,
    Window,
    axis_window,
    grid_windows,
    projected,
    raster_windows,
    swath_windows,
)
from l2view.granules.groups import ALONE
from l2view.granules.inventory import Inventory
from l2view.granules.profile import DEFAULT_KEYS
from l2view.granules.reader import GranuleReader
from l2view.stores.composed import ChunkSource, resolve_chunk
from l2view.stores.hierarchy import JSON, join
from l2view.virtual.chunk import ChunkEncoder, TranscodedChunk, chunk_index, chunk_key
from l2view.virtual.granules import READERS
from l2view.virtual.join_array import inner_codecs

TOGETHER = 8
"""How many granules' coordinates are read at a time; each may be as large as its swath."""

type CropWindows = Mapping[str, tuple[Window, ...]]
"""What is shown of a granule's arrays along each axis, by path; all of those that aren't there."""


@dataclass(frozen=True)
class CropCandidate:
    """What touches the place along some dimensions of a granule.

    Attributes
    ----------
    group
        The group that holds the coordinates.
    sizes
        The lengths of the dimensions, by name.
    windows
        What touches the place, by name.
    """

    group: str
    sizes: Mapping[str, int]
    windows: Mapping[str, Window]


class Crop:
    """A place, and what is shown of each granule for it.

    Parameters
    ----------
    place
        In EPSG:4326, within ±180° of longitude.
    exact
        Whether to show just the rows and columns that touch it, and not whole chunks.
    latitude, longitude
        The paths below a granule of the arrays of coordinates, where they aren't found.
    """

    def __init__(
        self,
        place: shapely.Geometry,
        *,
        exact: bool = False,
        latitude: str | None = None,
        longitude: str | None = None,
        known: dict[int, CropWindows] | None = None,
    ) -> None:
        self.place = place
        self.exact = exact
        self.latitude = latitude
        self.longitude = longitude
        self._known = {} if known is None else known
        self._pending: dict[int, Future[CropWindows]] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> JSON:
        names = ("place", "exact", "latitude", "longitude")
        return {name: getattr(self, name) for name in names} | {"known": dict(self._known)}

    def __setstate__(self, state: JSON) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Crop)
            and bool(self.place.equals(other.place))
            and (self.exact, self.latitude, self.longitude)
            == (other.exact, other.latitude, other.longitude)
        )

    __hash__ = None  # type: ignore[assignment]

    async def of(self, reader: GranuleReader, row: int) -> CropWindows:
        """Return what is shown of a granule's arrays."""
        if row not in self._known:
            # In a thread, for zarr's own groups and arrays are read on the way; and in one of our
            # own, for zarr's loop needs its threads for that.
            with self._lock:
                if row not in self._pending:
                    self._pending[row] = READERS.submit(self._find, reader, row)
                pending = self._pending[row]
            try:
                self._known[row] = await asyncio.wrap_future(pending)
            finally:  # what failed may not fail again
                with self._lock:
                    self._pending.pop(row, None)
        return self._known[row]

    async def cropped(self, reader: GranuleReader, inventory: Inventory) -> Inventory:
        """Return an inventory with what is shown of its granules."""
        rows = inventory.rows.tolist()
        gate = asyncio.Semaphore(TOGETHER)

        async def one(row: int) -> CropWindows:
            async with gate:
                return await self.of(reader, row)

        shown = await asyncio.gather(*map(one, rows))
        arrays = {}
        for path, array in inventory.arrays.items():
            starts, stops = np.zeros_like(array.shapes), array.shapes.copy()
            for member, windows in enumerate(shown):
                for axis, (start, stop) in enumerate(windows_at(windows, path)):
                    starts[member, axis], stops[member, axis] = start, stop
            chunks = array.chunk_shapes
            arrays[path] = replace(array, starts=starts, stops=stops, chunk_shapes=chunks)
        return replace(inventory, arrays=arrays)

    async def array(self, reader: GranuleReader, row: int, path: str) -> CroppedArray | None:
        """Return a granule's array with what is shown of it, None where all is."""
        windows = windows_at(await self.of(reader, row), path)
        document = await reader.layout.document(reader.granules.location(row), path)
        if not windows or document is None or document["node_type"] != "array":
            return None
        document = {**document, "attributes": document.get("attributes") or {}}
        return CroppedArray(reader, row, path, document, windows)

    def _find(self, reader: GranuleReader, row: int) -> CropWindows:
        """Return what is shown of a granule's arrays, reading its coordinates."""
        name = reader.granules.name(row)
        group = zarr.open_group(reader.store(row, name), mode="r")
        candidates = list(self._candidates(group))
        if not candidates:
            warn(
                f"{name} is shown whole: it has no latitudes and longitudes, axes or transform "
                "that l2view knows; name its arrays with latitude= and longitude=",
                L2ViewWarning,
            )
            return {}
        arrays = {
            node.path: node
            for _, node in group.members(max_depth=None)
            if isinstance(node, zarr.Array)
        }
        found = {path: _window_of(path, array, candidates) for path, array in arrays.items()}
        if not self.exact:
            found = _aligned(found, arrays)
        return {path: windows for path, windows in found.items() if windows is not None}

    def _candidates(self, group: zarr.Group) -> Iterator[CropCandidate]:
        """Yield what touches the place, by whatever says where the granule is."""
        for latitude, longitude in self._pairs(group):
            where = latitude.path.rpartition("/")[0]
            lat, lon = read_floats(latitude), read_floats(longitude)
            names = _names(latitude)
            if lat.ndim == lon.ndim == 1 and are_axes(latitude, longitude, lat, lon):
                rows, columns = grid_windows(lat, lon, self.place)
                both = (names[0], _names(longitude)[0])
                sizes = dict(zip(both, (len(lat), len(lon)), strict=True))
                yield CropCandidate(where, sizes, dict(zip(both, (rows, columns), strict=True)))
            elif lat.shape == lon.shape and lat.ndim == 1:
                rows, _ = swath_windows(lat[:, None], lon[:, None], self.place)
                yield CropCandidate(where, {names[0]: len(lat)}, {names[0]: rows})
            elif lat.shape == lon.shape and lat.ndim >= 2:
                rows, columns = _many(lat, lon, self.place)
                both = (names[-2], names[-1])
                sizes = dict(zip(both, lat.shape[-2:], strict=True))
                yield CropCandidate(where, sizes, dict(zip(both, (rows, columns), strict=True)))
        yield from _projected_grids(group, self.place)
        yield from _rasters(group, self.place)

    def _pairs(self, group: zarr.Group) -> Iterable[tuple[zarr.Array[Any], zarr.Array[Any]]]:
        if self.latitude is None and self.longitude is None:
            return pairs(group)
        named = [group.get(path) for path in (self.latitude or "", self.longitude or "")]
        if not all(isinstance(array, zarr.Array) for array in named):
            return ()
        return [(named[0], named[1])]  # type: ignore[list-item]


def _names(array: zarr.Array[Any]) -> list[str]:
    """Return the names of an array's dimensions, made up where it has none."""
    names = array.metadata.dimension_names or (None,) * array.ndim  # type: ignore[union-attr]
    return [f"axis {axis - array.ndim}" if n is None else n for axis, n in enumerate(names)]


def _many(lat: NDArray[Any], lon: NDArray[Any], place: shapely.Geometry) -> tuple[Window, Window]:
    """Return the windows of swaths on top of one another, as those that begin with a time are."""
    found = [
        swath_windows(one, other, place)
        for one, other in zip(
            lat.reshape(-1, *lat.shape[-2:]), lon.reshape(-1, *lon.shape[-2:]), strict=True
        )
    ]
    rows, columns = zip(*found, strict=True)
    return _hull(rows), _hull(columns)


def _hull(windows: Iterable[Window]) -> Window:
    some = [window for window in windows if window[1] > window[0]]
    if not some:
        return NOTHING
    return min(start for start, _ in some), max(stop for _, stop in some)


def _groups(group: zarr.Group) -> Iterator[tuple[str, zarr.Group]]:
    yield "", group
    for path, node in group.members(max_depth=None):
        if isinstance(node, zarr.Group):
            yield path, node


def _projected_grids(group: zarr.Group, place: shapely.Geometry) -> Iterator[CropCandidate]:
    """Yield what touches the place of grids with axes in a projection (CF 1.12, 5.6)."""
    for path, holder in _groups(group):
        arrays = dict(sorted(holder.arrays()))
        axes = {
            array.attrs.get("standard_name"): array for array in arrays.values() if array.ndim == 1
        }
        y, x = (axes.get(f"projection_{axis}_coordinate") for axis in "yx")
        crs = next(
            (found for array in arrays.values() if (found := crs_of_mapping(array.attrs.asdict()))),
            None,
        )
        if y is None or x is None or crs is None:
            continue
        west, south, east, north = projected(place, crs).bounds
        rows = axis_window(read_floats(y), [(south, north)])
        columns = axis_window(read_floats(x), [(west, east)])
        if NOTHING in (rows, columns):
            rows = columns = NOTHING
        names = (_names(y)[0], _names(x)[0])
        sizes = dict(zip(names, (y.shape[0], x.shape[0]), strict=True))
        yield CropCandidate(path, sizes, dict(zip(names, (rows, columns), strict=True)))


def _rasters(group: zarr.Group, place: shapely.Geometry) -> Iterator[CropCandidate]:
    """Yield what touches the place of images with a transform, and of their overviews."""
    images = [
        array
        for _, array in sorted(group.members(max_depth=None))
        if isinstance(array, zarr.Array) and array.ndim >= 2
    ]
    for _, holder in _groups(group):
        own = [array for array in images if array.path.rpartition("/")[0] == holder.path]
        placed = _placed(holder, own)
        if placed is None:
            continue
        full, transform, crs = placed
        rows, columns = image_axes(full)
        height, width = full.shape[rows], full.shape[columns]
        names = _names(full)
        for image in images:
            at = image_axes(image)
            mine, shape = _names(image), (image.shape[at[0]], image.shape[at[1]])
            if (mine[at[0]], mine[at[1]]) != (names[rows], names[columns]):
                continue
            if not is_overview(shape, (height, width)):
                continue
            # An overview covers what the full image covers, in larger pixels.
            scale = Affine.scale(width / shape[1], height / shape[0])
            windows = raster_windows(shape, transform @ scale, crs, place)
            dimensions = (mine[at[0]], mine[at[1]])
            yield CropCandidate(
                image.path.rpartition("/")[0],
                dict(zip(dimensions, shape, strict=True)),
                dict(zip(dimensions, windows, strict=True)),
            )


def _placed(
    holder: zarr.Group, images: Sequence[zarr.Array[Any]]
) -> tuple[zarr.Array[Any], Affine, Any] | None:
    """Return the image that a transform is of, the transform and its CRS."""
    for image in images:
        if (placed := placement(image.attrs.asdict())) is not None:
            return image, *placed
    said = holder.attrs.asdict()
    placed = placement(said)
    if placed is None or not images:
        return None
    shape: Any = said.get("spatial:shape") or said.get("proj:shape")
    fitting = [i for i in images if shape and [i.shape[a] for a in image_axes(i)] == list(shape)]
    return max(fitting or images, key=lambda one: one.size), *placed


def _window_of(
    path: str, array: zarr.Array[Any], candidates: Iterable[CropCandidate]
) -> tuple[Window, ...] | None:
    """Return what is shown of an array: by the nearest coordinates along its dimensions."""
    group = path.rpartition("/")[0]
    names = _names(array)
    for one in sorted(candidates, key=lambda one: distance(group, one.group)):
        fits = [axis for axis, name in enumerate(names) if one.sizes.get(name) == array.shape[axis]]
        named = array.metadata.dimension_names is not None  # type: ignore[union-attr]
        # By its length alone a dimension isn't known, by all of them it is.
        if fits and (named or {names[axis] for axis in fits} >= one.sizes.keys()):
            return tuple(
                one.windows[name] if axis in fits else (0, array.shape[axis])
                for axis, name in enumerate(names)
            )
    return None


def _aligned(
    found: Mapping[str, tuple[Window, ...] | None], arrays: Mapping[str, zarr.Array[Any]]
) -> dict[str, tuple[Window, ...] | None]:
    """Return windows that begin and end where chunks do, the same along the same dimension."""
    wanted: dict[tuple[str, int, Window], Window] = {}
    chunks: dict[tuple[str, int, Window], set[int]] = {}
    for path, windows in found.items():
        if windows is None:
            continue
        array = arrays[path]
        for name, size, window, chunk in zip(
            _names(array), array.shape, windows, array.shards or array.chunks, strict=True
        ):
            key = (name, size, window)
            wanted[key] = window
            chunks.setdefault(key, set()).add(chunk)
    for key, (start, stop) in wanted.items():
        while stop > start:
            begin = min(start // chunk * chunk for chunk in chunks[key])
            end = min(max(-(-stop // chunk) * chunk for chunk in chunks[key]), key[1])
            if (begin, end) == (start, stop):
                break
            start, stop = begin, end
        wanted[key] = (start, stop)
    return {
        path: None
        if windows is None
        else tuple(
            wanted[name, size, window]
            for name, size, window in zip(
                _names(arrays[path]), arrays[path].shape, windows, strict=True
            )
        )
        for path, windows in found.items()
    }


def windows_at(shown: CropWindows, path: str) -> tuple[Window, ...]:
    """Return what is shown of the array at a path, nothing where all is.

    An array that is a granule goes by `ALONE` as well.
    """
    if path == ALONE and len(shown) == 1 and path not in shown:
        return next(iter(shown.values()))
    return shown.get(path, ())


def cropped(document: JSON, windows: Sequence[Window]) -> JSON:
    """Return the document of a granule's array with what is shown of it."""
    chunks = _chunks(document)
    lengths = [stop - start for start, stop in windows]
    aligned = _is_aligned(windows, chunks)
    # Chunks that are cut anyway needn't be larger than what is shown, nor be shards.
    own = chunks if aligned else [max(min(c, n), 1) for c, n in zip(chunks, lengths, strict=True)]
    grid = {"name": "regular", "configuration": {"chunk_shape": own}}
    codecs = None if aligned else inner_codecs(document["codecs"])
    return {
        **document,
        "codecs": document["codecs"] if codecs is None else list(codecs),
        "shape": lengths,
        "chunk_grid": grid,
        "chunk_key_encoding": DEFAULT_KEYS,
    }


@dataclass(frozen=True, eq=False)
class CroppedArray:
    """A granule's array of which a part is shown.

    Attributes
    ----------
    reader, row
        The granule.
    path, document
        Its array.
    windows
        What is shown of it along each axis.
    """

    reader: GranuleReader
    row: int
    path: str
    document: JSON
    windows: tuple[Window, ...]

    @cached_property
    def shown(self) -> JSON:
        """The document of what is shown."""
        return cropped(self.document, self.windows)

    @property
    def grid(self) -> tuple[int, ...]:
        """The number of chunks that are shown along each axis."""
        chunks = _chunks(self.shown)
        return tuple(-(-n // c) for n, c in zip(self.shown["shape"], chunks, strict=True))

    def find(self, key: str) -> ChunkSource:
        """Return where a chunk comes from: its own, where the windows begin with chunks."""
        index = chunk_index(key, self.grid)
        if index is None:
            return None
        begins = [start for start, _ in self.windows]
        chunks = _chunks(self.document)
        if _is_aligned(self.windows, chunks):
            own = tuple(i + start // c for i, start, c in zip(index, begins, chunks, strict=True))
            encoding = parse_chunk_key_encoding(self.document["chunk_key_encoding"])
            return self.reader.chunk(self.row, join(self.path, encoding.encode_chunk_key(own)))
        shape = tuple(_chunks(self.shown))
        starts = [begin + i * c for begin, i, c in zip(begins, index, shape, strict=True)]
        ends = [stop for _, stop in self.windows]
        window = tuple(
            slice(start, min(start + c, end))
            for start, c, end in zip(starts, shape, ends, strict=True)
        )
        document = self.document
        encoding_shown = ArrayEncoding.stored(document, self.shown["codecs"], padded=False)
        encoder = ChunkEncoder(encoding_shown, len(shape))
        return TranscodedChunk(self.reader, self.row, self.path, document, window, shape, encoder)

    async def keys(self) -> AsyncIterator[str]:
        """Yield the keys of the chunks that there are."""
        for index in np.ndindex(*self.grid):
            key = chunk_key(index)
            source = await resolve_chunk(self.find(key))
            if isinstance(source, str):
                if await self.reader.source.exists(source):
                    yield key
            elif source is not None:
                yield key


@dataclass(frozen=True, eq=False)
class CroppedChunk:
    """A chunk below a granule whose arrays are cropped.

    Attributes
    ----------
    crop
        The place.
    reader, row
        The granule.
    key
        The chunk's key below it.
    """

    crop: Crop
    reader: GranuleReader
    row: int
    key: str

    async def resolve(self) -> ChunkSource:
        """Return where it comes from."""
        path, _, rest = f"{self.key}/".rpartition("/c/")
        array = await self.crop.array(self.reader, self.row, path) if path else None
        if array is None:
            return self.reader.chunk(self.row, self.key)
        return array.find(f"c/{rest}".rstrip("/"))


def _is_aligned(windows: Sequence[Window], chunks: Sequence[int]) -> bool:
    """Return whether windows begin where chunks do."""
    return all(start % c == 0 for (start, _), c in zip(windows, chunks, strict=True))


def _chunks(document: JSON) -> list[int]:
    chunks: list[int] = document["chunk_grid"]["configuration"]["chunk_shape"]
    return chunks
