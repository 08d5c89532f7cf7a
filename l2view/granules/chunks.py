"""Where the chunks of stored arrays lie: file, offset and length of each.

They are read array by array from Icechunk's manifests, or from the listing of a plain Zarr store,
a batch in memory. A store that can't list is asked for each chunk that there may be.

Not good for a few chunks of many: Icechunk lists those of an array from the first to the last.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import batched
from typing import Any, Literal
from urllib.parse import quote

import icechunk
import numpy as np
import obstore
import obstore.exceptions
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.chunk_key_encodings import ChunkKeyEncoding
from zarr.core.sync import sync
from zarr.storage import LocalStore, ObjectStore

from l2view.errors import StoreError
from l2view.granules.table import SourceArray
from l2view.stores.hierarchy import JSON, METADATA_KEYS
from l2view.text import first_line

type ChunkKind = Literal["missing", "native", "virtual", "inline"]
"""Where a chunk is: nowhere, a value of the store, in a file, or in the manifest."""

KINDS: tuple[ChunkKind, ...] = ("missing", "native", "virtual", "inline")
"""The kinds by number, those of `icechunk.ChunkType` but for the first."""

MISSING, NATIVE, VIRTUAL, INLINE = range(4)

BATCH = 100_000  # the chunks in a table, at most

PROBED = 100_000
"""The most chunks of an array that are asked for one by one, where a store can't list."""

AT_ONCE = 64  # how many of them are asked for together


@dataclass(frozen=True)
class ChunkTable:
    """n chunks of one array of granules."""

    members: NDArray[np.int64]  # of their granules in a table, of shape (n,)
    index: NDArray[np.int64]  # of shape (n, rank)
    kinds: NDArray[np.uint8]  # numbers of `KINDS`, of shape (n,)
    paths: Sequence[str]  # URLs of files; ids of Icechunk's native chunks; empty for inline ones
    offsets: NDArray[np.uint64]  # in bytes, as the lengths, of shape (n,)
    lengths: NDArray[np.uint64]
    inlined: Mapping[int, bytes]  # the bytes of inline ones, by position
    checksums: Sequence[str | None] | None = None  # the files' ETags, where they are known

    def __len__(self) -> int:
        return len(self.members)

    def take(self, positions: NDArray[np.intp]) -> ChunkTable:
        """Return the chunks at some positions."""
        numbers, sums = positions.tolist(), self.checksums
        return ChunkTable(
            self.members[positions],
            self.index[positions],
            self.kinds[positions],
            [self.paths[number] for number in numbers],
            self.offsets[positions],
            self.lengths[positions],
            {n: self.inlined[old] for n, old in enumerate(numbers) if old in self.inlined},
            None if sums is None else [sums[number] for number in numbers],
        )


def grid_of(document: JSON) -> tuple[int, ...]:
    """Return the number of chunks along each axis of an array, by its document.

    A `ValueError` says that its chunk grid is none that l2view knows.
    """
    grid = document["chunk_grid"]
    if grid["name"] == "regular":
        cuts = grid["configuration"]["chunk_shape"]
    elif grid["name"] == "rectilinear":
        cuts = grid["configuration"]["chunk_shapes"]
    else:
        raise ValueError(f"its chunk grid is {grid['name']}")
    return tuple(
        -(-length // max(cut, 1))  # all of one length
        if isinstance(cut, int)
        else sum(part[1] if isinstance(part, list) else 1 for part in cut)
        for length, cut in zip(document["shape"], cuts, strict=True)
    )


async def stored_chunks(
    store: Store, source: SourceArray, grid: NDArray[np.int64], encoding: ChunkKeyEncoding
) -> AsyncIterator[ChunkTable]:
    """Yield the chunks that there are of one array of a store.

    The `grid` has the number of chunks along each axis, of shape (n, rank) for all granules. A
    `StoreError` says that the store can't list, and there may be more chunks than can be asked for.
    """
    if isinstance(store, icechunk.IcechunkStore):
        batches: Any = store.array_chunk_iterator(f"/{source.path}", BATCH)
        pages: AsyncIterator[ChunkTable] = (
            ChunkTable(np.zeros(len(index), np.int64), index.astype(np.int64), *columns)
            async for index, *columns in batches
        )
    else:
        pages = _from_listing(store, source, grid, encoding)
    async for page in pages:
        chunks = _assign_members(page, source)
        inside = (chunks.index < grid[chunks.members]).all(axis=1)
        yield chunks if inside.all() else chunks.take(np.flatnonzero(inside))


def _assign_members(chunks: ChunkTable, source: SourceArray) -> ChunkTable:
    """Return chunks with the granules that they are of, and the indices that they have there."""
    if source.slots is None:
        return replace(chunks, members=np.repeat(source.members, len(chunks)))
    # A slot may be that of several granules, or of none of the view.
    order = np.argsort(source.slots, kind="stable")
    slots, own = source.slots[order], chunks.index[:, 0]
    begins = np.searchsorted(slots, own, side="left")
    counts = np.searchsorted(slots, own, side="right") - begins
    rows = np.repeat(np.arange(len(chunks)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    members = source.members[order[np.repeat(begins, counts) + within]]
    chunks = replace(chunks, index=chunks.index[:, 1:])
    return replace(chunks if (counts == 1).all() else chunks.take(rows), members=members)


type StoredObject = tuple[str, str, int, str | None]
"""The key of an object, its URL, its size, its ETag."""


async def _from_listing(
    store: Store, source: SourceArray, grid: NDArray[np.int64], encoding: ChunkKeyEncoding
) -> AsyncIterator[ChunkTable]:
    """Yield the chunks of a plain Zarr store, each of which is an object of its own."""
    rank = grid.shape[1] + (source.slots is not None)
    async for page in _objects(store, source, grid, encoding):
        indices: list[tuple[int, ...]] = []
        objects: list[StoredObject] = []
        for described in page:
            key = described[0].removeprefix(f"{source.path}/") if source.path else described[0]
            if key.rpartition("/")[2] in METADATA_KEYS:
                continue
            try:
                index = tuple(encoding.decode_chunk_key(key))
            except (ValueError, TypeError):  # what lies beside the chunks is none
                continue
            # An array of no dimensions has an index in Zarr v2.
            if len(index) == rank or not rank:
                indices.append(index[:rank])
                objects.append(described)
        count = len(objects)
        yield ChunkTable(
            np.zeros(count, dtype=np.int64),
            np.array(indices, dtype=np.int64).reshape(count, rank),
            np.full(count, NATIVE, dtype=np.uint8),
            [url for _, url, _, _ in objects],
            np.zeros(count, dtype=np.uint64),
            np.array([size for _, _, size, _ in objects], dtype=np.uint64),
            {},
            [etag for _, _, _, etag in objects],
        )


async def _objects(
    store: Store, source: SourceArray, grid: NDArray[np.int64], encoding: ChunkKeyEncoding
) -> AsyncIterator[list[StoredObject]]:
    """Yield the objects below an array, listed or asked for one by one."""
    prefix = f"{source.path}/" if source.path else ""
    begun = False
    try:
        async for page in _list_objects(store, prefix):
            begun = True
            yield page
        return
    except (obstore.exceptions.BaseError, NotImplementedError) as error:
        total = sum(math.prod(counts) for counts in grid.tolist())
        cannot = isinstance(error, NotImplementedError | obstore.exceptions.NotSupportedError)
        if begun or not cannot or total > PROBED:
            raise StoreError(
                f"the chunks below {prefix or 'the root'} can't be listed ({first_line(error)}), "
                "which telling where they lie takes of a store that isn't Icechunk"
            ) from error
    candidates: dict[str, None] = {}
    for position, member in enumerate(source.members.tolist()):
        slot = () if source.slots is None else (int(source.slots[position]),)
        for index in np.ndindex(*grid[member].tolist()):
            candidates[prefix + encoding.encode_chunk_key((*slot, *index))] = None
    for keys in batched(candidates, AT_ONCE):
        sizes = await asyncio.gather(*(_size(store, key) for key in keys))
        pairs = zip(keys, sizes, strict=True)
        yield [(key, _url(store, key), size, None) for key, size in pairs if size is not None]


async def _size(store: Store, key: str) -> int | None:
    """Return the size of a value, None where there is none."""
    try:
        return await store.getsize(key)
    except FileNotFoundError:
        return None


async def _list_objects(store: Store, prefix: str) -> AsyncIterator[list[StoredObject]]:
    """Yield the objects whose keys begin with `prefix`."""
    objects: Any = None
    if isinstance(store, LocalStore):
        # obstore lists its keys with sizes, many at a time.
        objects = obstore.store.LocalStore(store.root)
    elif isinstance(store, ObjectStore):
        objects = store.store
        if isinstance(objects, obstore.store.HTTPStore):
            raise NotImplementedError("a server can't list its files")
    if objects is not None:
        async for page in obstore.list(objects, prefix=prefix.rstrip("/"), chunk_size=BATCH):
            yield [(m["path"], _url(store, m["path"]), m["size"], m["e_tag"]) for m in page]
        return
    if not store.supports_listing:
        raise NotImplementedError(f"{type(store).__name__} has no listing")
    keys = [key async for key in store.list_prefix(prefix)]
    sizes = await asyncio.gather(*(store.getsize(key) for key in keys))
    yield [(key, key, size, None) for key, size in zip(keys, sizes, strict=True)]


def _url(store: Store, key: str) -> str:
    """Return the URL of a value, its key where the store has none."""
    if isinstance(store, LocalStore):
        return f"{store.root.absolute().as_uri()}/{quote(key)}"
    if isinstance(store, ObjectStore):
        return f"{_root_url(store.store)}/{quote(key)}"
    return key


def _root_url(objects: Any) -> str:
    """Return the URL of an obstore store's root, empty where it has none."""
    prefix = getattr(objects, "prefix", None)
    below = f"/{prefix}" if prefix else ""
    name = type(objects).__name__
    if scheme := {"S3Store": "s3", "GCSStore": "gs"}.get(name):
        return f"{scheme}://{objects.config['bucket']}{below}"
    if name == "HTTPStore":
        return str(objects.url).rstrip("/")
    return f"file://{quote(str(prefix or ''))}" if name == "LocalStore" else ""


def iterate_sync[Item](items: AsyncIterator[Item]) -> Iterator[Item]:
    """Yield the items of an asynchronous iterator, which zarr's event loop runs."""

    async def next_item() -> Item | None:
        return await anext(items, None)

    while (item := sync(next_item())) is not None:
        yield item
