"""Read the arrays of granules from their source store, below any view.

A layout translates a granule's keys into keys of the source store; tables tell what the
arrays are, so that opening one asks the store for nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pyarrow as pa
import zarr
from zarr import AsyncArray
from zarr.abc.store import Store
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.storage import StorePath

from l2view.arrays.stored import ChunkDecoder, StoredArray
from l2view.arrays.values import ValueDecoder
from l2view.cache import RecentCache
from l2view.errors import UnsupportedArrayError
from l2view.granules import Layout, Location, UnreadError
from l2view.granules.table import ArrayTable
from l2view.stores.composed import ChunkSource, ComposedStore, MetadataDocument, is_metadata
from l2view.stores.hierarchy import JSON, join

DECODERS = 256  # the decoders that a reader remembers


class GranuleRows(Protocol):
    """Granules by their positions, with their names and fields."""

    @property
    def names(self) -> Any:
        """The names, an Arrow array of shape (n,)."""

    def name(self, row: int) -> str:
        """Return the name of one granule."""

    def location(self, row: int) -> Location:
        """Return where one granule's arrays lie."""

    def available(self, names: Sequence[str]) -> pa.Table:
        """Read those of some fields that there are."""


@dataclass(frozen=True)
class NeedsMetadata:
    """A granule's chunk whose key takes the granule's metadata, which isn't read yet."""

    layout: Layout
    location: Location
    key: str

    async def resolve(self) -> str | None:
        """Return the key in the source store, reading the metadata first."""
        if await self.layout.document(self.location, "") is None:
            return None
        return self.layout.source_key(self.location, self.key)


def granule_chunk(layout: Layout, location: Location, key: str) -> str | NeedsMetadata | None:
    """Return where the chunk at a key below a granule is, None where it can't be one."""
    try:
        return layout.source_key(location, key)
    except UnreadError:
        return NeedsMetadata(layout, location, key)


class GranuleStore(ComposedStore):
    """One granule as a Zarr store, without the fields and crops of a view.

    Messages call it `name`; it is empty where they name the granule already.
    """

    def __init__(self, source: Store, layout: Layout, location: Location, name: str = "") -> None:
        super().__init__(read_only=True)
        self._source = source
        self.layout = layout
        self.location = location
        self.name = name

    @property
    def source(self) -> Store:
        """The store that holds the chunks."""
        return self._source

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, GranuleStore)
            and self.source == other.source
            and self.location == other.location
        )

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return f"the granule {self.name}"

    def find(self, key: str) -> ChunkSource:
        """Return where the value at `key` is."""
        if is_metadata(key):
            path, _, name = key.rpartition("/")
            return MetadataDocument(partial(self._document, path)) if name == "zarr.json" else None
        return granule_chunk(self.layout, self.location, key)

    async def _document(self, path: str) -> JSON | None:
        try:
            return await self.layout.document(self.location, path)
        except UnsupportedArrayError:  # which views leave out with a warning
            return None

    def _label(self, key: str) -> str:
        return join(self.name, key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names of the nodes directly below a group."""
        for name in await self.layout.children(self.location, prefix.strip("/")):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Refuse: `l2view.granules.chunks` tells of chunks."""
        raise NotImplementedError("a granule's chunks are told by l2view.granules.chunks")
        yield


class GranuleReader:
    """Opens the arrays of granules, by the layout that finds them in the source store."""

    def __init__(self, source: Store, layout: Layout, granules: GranuleRows) -> None:
        self.source = source
        self.layout = layout
        self.granules = granules
        # By the id of a table's arrays, a variant of theirs, and a chunk shape; with the arrays,
        # which are held so that no other takes an id's place.
        self._decoders = RecentCache[tuple[Any, ...], tuple[ArrayTable, ChunkDecoder]](DECODERS)

    def __getstate__(self) -> JSON:
        return {"source": self.source, "layout": self.layout, "granules": self.granules}

    def __setstate__(self, state: JSON) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def chunk(self, row: int, key: str) -> str | NeedsMetadata | None:
        """Return where the chunk at a key below a granule is."""
        return granule_chunk(self.layout, self.granules.location(row), key)

    def store(self, row: int, name: str = "") -> GranuleStore:
        """Return a granule as a Zarr store, which messages call `name`."""
        return GranuleStore(self.source, self.layout, self.granules.location(row), name)

    def stored_array(
        self, row: int, array: ArrayTable, member: int, values: Sequence[ValueDecoder]
    ) -> StoredArray:
        """Return the array of the granule at `row`, the `member` of a table.

        The `values` decode the stored values of each variant.
        """
        begin, variant = array.begins[member], int(array.variant_index[member])
        name = self.granules.name(row)
        store_path = StorePath(self.store(row, name), array.path)

        def open() -> zarr.Array[Any]:
            return zarr.Array(open_array(store_path, array.document(member)))

        # What decodes a chunk is the same for all granules with such chunks.
        key = (id(array), variant, tuple(array.chunk_shapes[member].tolist()))
        if (cached := self._decoders.get(key)) is None:
            cached = array, ChunkDecoder.of(open())
            self._decoders.put(key, cached)
        return StoredArray(
            name=f"{name}/{array.path}",
            store_path=store_path,
            open=open,
            decoder=cached[1],
            values=values[variant],
            begin=tuple(begin.tolist()),
            shape=tuple((array.ends[member] - begin).tolist()),
        )


def open_array(store_path: StorePath, document: JSON) -> AsyncArray[Any]:
    """Return an array as zarr has it, by its document and without asking the store."""
    metadata = ArrayV3Metadata.from_dict({**document, "attributes": {}})
    return AsyncArray(metadata=metadata, store_path=store_path)
