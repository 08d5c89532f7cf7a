"""The rows and columns of each granule's arrays that touch a place.

They are found out when a granule is first asked for, from its latitudes and longitudes, its axes,
or its transform; and then hold for all of its arrays along the same dimensions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import shapely
import zarr

from l2view.arrays.encoding import ArrayEncoding
from l2view.cache import RecentCache
from l2view.errors import L2ViewWarning, warn
from l2view.geolocation.dimensions import Dimension
from l2view.geolocation.finder import georeference_fields
from l2view.geolocation.granule import LocatedGranule
from l2view.geolocation.granule_windows import GranuleWindows, granule_windows
from l2view.geolocation.windows import Window
from l2view.granules.groups import ALONE
from l2view.granules.profile import split_chunk_key
from l2view.granules.reader import GranuleReader
from l2view.granules.table import ArrayTable, GranuleTable, find_variants
from l2view.stores.composed import ChunkSource
from l2view.stores.hierarchy import JSON
from l2view.virtual.granules import submit
from l2view.virtual.join_array import JoinedArray

CONCURRENCY = 8
"""How many granules' coordinates are read at a time; each may be as large as its swath."""

type ArrayWindows = Mapping[str, tuple[Window, ...]]
"""What is shown of a granule's arrays along each axis, by path; all of an array without any."""


@dataclass(eq=False)
class Crop:
    """A place, and the windows of each granule's arrays that touch it."""

    place: shapely.Geometry  # in EPSG:4326, within ±180° of longitude
    exact: bool = False  # whether rows and columns are shown, and not whole chunks
    latitude: str | None = None  # the paths of coordinates below a granule, where they are named
    longitude: str | None = None
    _windows: dict[int, ArrayWindows] = field(default_factory=dict)
    _pending: dict[int, Future[ArrayWindows]] = field(default_factory=dict)
    _arrays: RecentCache[tuple[int, str], JoinedArray] = field(
        default_factory=lambda: RecentCache(256)
    )

    def __getstate__(self) -> JSON:
        names = ("place", "exact", "latitude", "longitude")
        return {name: getattr(self, name) for name in names} | {"_windows": dict(self._windows)}

    def __setstate__(self, state: JSON) -> None:
        self.__init__(**state)  # type: ignore[misc]

    async def windows(self, reader: GranuleReader, row: int) -> ArrayWindows:
        """Return the windows of a granule's arrays."""
        if row not in self._windows:
            # In a thread, for zarr's own groups and arrays are read on the way; and in one of our
            # own, for zarr's loop needs its threads for that.
            pending = self._pending.get(row) or submit(self._find_windows, reader, row)
            self._pending[row] = pending
            try:
                self._windows[row] = await asyncio.wrap_future(pending)
            finally:  # what failed may not fail again
                self._pending.pop(row, None)
        return self._windows[row]

    def _find_windows(self, reader: GranuleReader, row: int) -> ArrayWindows:
        """Return the windows of a granule's arrays, reading its coordinates."""
        name = reader.granules.name(row)
        group = zarr.open_group(reader.store(row, name), mode="r")
        granule = LocatedGranule(group, georeference_fields(reader, [row])[0])
        named = None if self.latitude is None else (self.latitude, self.longitude or "")
        windows = granule_windows(granule, self.place, named)
        if windows is None:
            warn(
                f"{name} is shown whole: it has no latitudes and longitudes, axes or transform "
                "that l2view knows; name its arrays with latitude= and longitude=",
                L2ViewWarning,
            )
            return {}
        for note in windows.notes:
            warn(f"{name}: {note}", L2ViewWarning)
        if not self.exact:
            windows = _align_to_chunks(windows, granule.arrays)
        return windows.of_arrays()

    async def crop_table(self, reader: GranuleReader, table: GranuleTable) -> GranuleTable:
        """Return a table with the windows of its granules' arrays."""
        gate = asyncio.Semaphore(CONCURRENCY)

        async def read(row: int) -> ArrayWindows:
            async with gate:
                return await self.windows(reader, row)

        granules = await asyncio.gather(*map(read, table.rows.tolist()))
        arrays = {}
        for path, array in table.arrays.items():
            starts, stops = np.zeros_like(array.shapes), array.shapes.copy()
            for member, windows in enumerate(granules):
                for axis, (start, stop) in enumerate(array_windows(windows, path)):
                    starts[member, axis], stops[member, axis] = start, stop
            arrays[path] = replace(array, starts=starts, stops=stops)
        return replace(table, arrays=arrays)

    async def array(
        self, reader: GranuleReader, row: int, path: str, document: JSON | None
    ) -> JoinedArray | None:
        """Return the array at `path` with its windows, None where there is none or all is shown."""
        if document is None or document["node_type"] != "array":
            return None
        windows = array_windows(await self.windows(reader, row), path)
        if not windows:
            return None
        if (array := self._arrays.get((row, path))) is None:
            array = _cropped_array(row, path, document, windows)
            self._arrays.put((row, path), array)
        return array

    async def find(self, reader: GranuleReader, row: int, key: str) -> ChunkSource:
        """Return where the chunk at `key` below a granule comes from."""
        path, chunk = split_chunk_key(key)
        location = reader.granules.location(row)
        document = await reader.layout.document(location, path) if path else None
        array = await self.array(reader, row, path, document)
        return reader.chunk(row, key) if array is None else array.find(reader, chunk)


def _align_to_chunks(
    windows: GranuleWindows, arrays: Mapping[str, zarr.Array[Any]]
) -> GranuleWindows:
    """Return windows that begin and end where chunks do, but for those that depend on others."""
    chunks: dict[Dimension, set[int]] = {}
    for path, axes in windows.dimensions.items():
        for axis, chunk in zip(axes, arrays[path].shards or arrays[path].chunks, strict=True):
            chunks.setdefault(axis, set()).add(chunk)
    aligned = dict(windows.windows)
    for axis in windows.windows.keys() - windows.linked:
        start, stop = aligned[axis]
        while stop > start:
            begin = min(start // chunk * chunk for chunk in chunks[axis])
            end = min(max(-(-stop // chunk) * chunk for chunk in chunks[axis]), axis.length)
            if (begin, end) == (start, stop):
                break
            start, stop = begin, end
        aligned[axis] = (start, stop)
    return replace(windows, windows=aligned)


def array_windows(windows: ArrayWindows, path: str) -> tuple[Window, ...]:
    """Return the windows of the array at a path, none where all of it is shown.

    An array that is a granule goes by `ALONE` as well.
    """
    if path == ALONE and len(windows) == 1 and path not in windows:
        return next(iter(windows.values()))
    return windows.get(path, ())


def _cropped_array(row: int, path: str, document: JSON, windows: Sequence[Window]) -> JoinedArray:
    """Return a granule's array of which a part is shown: a concatenation of nothing else."""
    chunks = document["chunk_grid"]["configuration"]["chunk_shape"]
    variants, index, _ = find_variants([document], np.zeros(1, dtype=np.int32))
    starts, stops = (np.array([side], dtype=np.int64) for side in zip(*windows, strict=True))
    sizes = np.array([document["shape"]]), np.array([chunks])
    table = ArrayTable(path, variants, index, *sizes, {}, starts, stops)
    shape = (stops - starts)[0].tolist()
    if (starts % chunks).any():  # chunks that are cut needn't be larger than what is shown
        chunks = [max(min(chunk, length), 1) for chunk, length in zip(chunks, shape, strict=True)]
    encoding = ArrayEncoding.of_variant(variants[0], document["codecs"], padded=False)
    grid = tuple(shape), tuple(chunks)
    joined = JoinedArray(np.array([row]), table, encoding, {}, table.dimensions, *grid, axis=0)
    return joined.with_encodable_codecs()


@dataclass(frozen=True, eq=False)
class CroppedChunk:
    """A chunk that takes the windows of a granule to be found."""

    resolve: Callable[[], Coroutine[Any, Any, ChunkSource]]
