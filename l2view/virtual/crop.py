"""The rows and columns of each granule's arrays that touch a place.

They are found out when a granule is first asked for, from its latitudes and longitudes, its axes,
or its transform; and then hold for all of its arrays along the same dimensions.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import shapely
import zarr
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding

from l2view.arrays.encoding import ArrayEncoding, encodable_codecs
from l2view.errors import L2ViewWarning, warn
from l2view.geolocation.dimensions import Dimension
from l2view.geolocation.finder import georeference_fields
from l2view.geolocation.granule import LocatedGranule
from l2view.geolocation.granule_windows import GranuleWindows, granule_windows
from l2view.geolocation.windows import Window
from l2view.granules.chunks import grid_of
from l2view.granules.groups import ALONE
from l2view.granules.profile import DEFAULT_KEYS, split_chunk_key
from l2view.granules.reader import GranuleReader
from l2view.granules.table import GranuleTable, regular_grid
from l2view.stores.composed import ChunkSource
from l2view.stores.hierarchy import JSON, join
from l2view.virtual.chunk import (
    ChunkEncoder,
    TranscodedChunk,
    chunk_index,
)
from l2view.virtual.granules import submit

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
    _lock: threading.Lock = field(default_factory=threading.Lock)

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
            with self._lock:
                if row not in self._pending:
                    self._pending[row] = submit(self._find_windows, reader, row)
                pending = self._pending[row]
            try:
                self._windows[row] = await asyncio.wrap_future(pending)
            finally:  # what failed may not fail again
                with self._lock:
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
    ) -> CroppedArray | None:
        """Return the array at `path` with its windows, None where there is none or all is shown."""
        if document is None or document["node_type"] != "array":
            return None
        windows = array_windows(await self.windows(reader, row), path)
        document = {**document, "attributes": document.get("attributes") or {}}
        return CroppedArray(reader, row, path, document, windows) if windows else None


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


@dataclass(frozen=True, eq=False)
class CroppedArray:
    """A granule's array of which a part is shown.

    `source` is its Zarr v3 document, `windows` what is shown of it along each axis.
    """

    reader: GranuleReader
    row: int
    path: str
    source: JSON
    windows: tuple[Window, ...]

    @property
    def is_aligned(self) -> bool:
        """Whether the windows begin where chunks do, so that chunks pass unchanged."""
        pairs = zip(self.windows, _chunk_shape(self.source), strict=True)
        return all(start % chunk == 0 for (start, _), chunk in pairs)

    @cached_property
    def document(self) -> JSON:
        """The Zarr v3 document of what is shown."""
        shape = [stop - start for start, stop in self.windows]
        chunks, codecs = _chunk_shape(self.source), self.source["codecs"]
        if not self.is_aligned:
            # Chunks that are cut needn't be larger than what is shown, nor be shards.
            chunks = [max(min(c, n), 1) for c, n in zip(chunks, shape, strict=True)]
            codecs = list(encodable_codecs(codecs, self.source["data_type"]))
        return {
            **self.source,
            "codecs": codecs,
            "shape": shape,
            "chunk_grid": regular_grid(chunks),
            "chunk_key_encoding": DEFAULT_KEYS,
        }

    def find(self, key: str) -> ChunkSource:
        """Return where the chunk at `key` comes from."""
        index = chunk_index(key, grid_of(self.document))
        if index is None:
            return None
        if self.is_aligned:
            axes = zip(index, self.windows, _chunk_shape(self.source), strict=True)
            own = tuple(i + start // chunk for i, (start, _), chunk in axes)
            keys = parse_chunk_key_encoding(self.source["chunk_key_encoding"])
            return self.reader.chunk(self.row, join(self.path, keys.encode_chunk_key(own)))
        chunks = _chunk_shape(self.document)
        region = [
            slice(start + i * chunk, min(start + (i + 1) * chunk, stop))
            for i, (start, stop), chunk in zip(index, self.windows, chunks, strict=True)
        ]
        encoding = ArrayEncoding.of_variant(self.source, self.document["codecs"], padded=False)
        encoder = ChunkEncoder(encoding, len(chunks))
        return TranscodedChunk(
            self.reader, self.row, self.path, self.source, tuple(region), tuple(chunks), encoder
        )


@dataclass(frozen=True, eq=False)
class CroppedChunk:
    """A chunk, by its `key` below a granule whose arrays are cropped."""

    crop: Crop
    reader: GranuleReader
    row: int
    key: str

    async def resolve(self) -> ChunkSource:
        """Return where it comes from."""
        path, chunk = split_chunk_key(self.key)
        location = self.reader.granules.location(self.row)
        document = await self.reader.layout.document(location, path) if path else None
        array = await self.crop.array(self.reader, self.row, path, document)
        if array is None:
            return self.reader.chunk(self.row, self.key)
        return array.find(chunk)


def _chunk_shape(document: JSON) -> list[int]:
    chunks: list[int] = document["chunk_grid"]["configuration"]["chunk_shape"]
    return chunks
