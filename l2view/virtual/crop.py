"""The rows and columns of each granule's arrays that touch a place.

They are found out when a granule is first asked for, from its latitudes and longitudes, its axes,
or its transform; and then hold for all of its arrays along the same dimensions.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import shapely
import zarr
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding

from l2view.arrays.encoding import ArrayEncoding
from l2view.errors import L2ViewWarning, warn
from l2view.geolocation.finder import georeference_fields
from l2view.geolocation.granule import LocatedGranule, dimension_names
from l2view.geolocation.windows import Window, granule_windows
from l2view.granules.groups import ALONE
from l2view.granules.inventory import Inventory
from l2view.granules.profile import DEFAULT_KEYS
from l2view.granules.reader import GranuleReader
from l2view.stores.composed import ChunkSource
from l2view.stores.hierarchy import JSON, join
from l2view.virtual.chunk import ChunkEncoder, TranscodedChunk, chunk_index, existing_keys
from l2view.virtual.granules import READERS
from l2view.virtual.join_array import inner_codecs

TOGETHER = 8
"""How many granules' coordinates are read at a time; each may be as large as its swath."""

type CropWindows = Mapping[str, tuple[Window, ...]]
"""What is shown of a granule's arrays along each axis, by path; all of those that aren't there."""


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
        return windows if self.exact else _align_to_chunks(windows, granule.arrays)


def _align_to_chunks(
    windows: CropWindows, arrays: Mapping[str, zarr.Array[Any]]
) -> dict[str, tuple[Window, ...]]:
    """Return windows that begin and end where chunks do, the same along the same dimension."""
    aligned: dict[tuple[str, int, Window], Window] = {}
    chunks: dict[tuple[str, int, Window], set[int]] = {}
    keys = {
        path: list(zip(dimension_names(arrays[path]), arrays[path].shape, own, strict=True))
        for path, own in windows.items()
    }
    for path, own_keys in keys.items():
        for key, chunk in zip(own_keys, arrays[path].shards or arrays[path].chunks, strict=True):
            aligned[key] = key[2]
            chunks.setdefault(key, set()).add(chunk)
    for key, (start, stop) in aligned.items():
        while stop > start:
            begin = min(start // chunk * chunk for chunk in chunks[key])
            end = min(max(-(-stop // chunk) * chunk for chunk in chunks[key]), key[1])
            if (begin, end) == (start, stop):
                break
            start, stop = begin, end
        aligned[key] = (start, stop)
    return {path: tuple(aligned[key] for key in own_keys) for path, own_keys in keys.items()}


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
        encoding_shown = ArrayEncoding.of_variant(document, self.shown["codecs"], padded=False)
        encoder = ChunkEncoder(encoding_shown, len(shape))
        return TranscodedChunk(self.reader, self.row, self.path, document, window, shape, encoder)

    def keys(self) -> AsyncIterator[str]:
        """Yield the keys of the chunks that there are."""
        return existing_keys(self.grid, self.find, self.reader.source)


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
