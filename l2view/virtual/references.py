"""Where the chunks of a view lie: file, offset and length of each.

They are read array by array from Icechunk's manifests, or from the listing of a plain Zarr store;
never all of them are held at once.

Not good for a few granules of a large collection: Icechunk tells the chunks of an array from the
first to the last, and they are gone through until those of the view were found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from urllib.parse import quote

import icechunk
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding
from zarr.core.sync import sync

from l2view.granules import Location
from l2view.granules.chunks import (
    BATCH,
    KINDS,
    MISSING,
    NATIVE,
    VIRTUAL,
    ChunkTable,
    iterate_sync,
    stored_chunks,
)
from l2view.granules.inventory import ArrayInventory, Inventory
from l2view.granules.reader import GranuleReader
from l2view.stores.hierarchy import JSON
from l2view.virtual.tree import Tree

SCHEMA = pa.schema(
    [
        ("granule", pa.dictionary(pa.int32(), pa.large_string())),
        ("array", pa.dictionary(pa.int32(), pa.string())),
        ("chunk", pa.list_(pa.int64())),
        ("kind", pa.dictionary(pa.int8(), pa.string())),
        ("path", pa.string()),
        ("offset", pa.uint64()),
        ("length", pa.uint64()),
        ("checksum", pa.string()),
    ]
)
"""The columns of a table of references."""


async def chunks_of(
    reader: GranuleReader, inventory: Inventory, locations: Sequence[Location], path: str
) -> AsyncIterator[ChunkTable]:
    """Yield the chunks that there are of the arrays at `path`."""
    array = inventory.arrays[path]
    grids = array.grids
    counts = grids.prod(axis=1)
    whole = -(-array.shapes // np.maximum(array.chunk_shapes, 1))
    for source in reader.layout.sources(inventory, locations, path):
        left = int(counts[source.members].sum())
        first = array.variants[array.variant_index[int(source.members[0])]]
        encoding = parse_chunk_key_encoding(first["chunk_key_encoding"])
        async for found in stored_chunks(reader.source, source, whole, encoding):
            chunks = found if array.starts is None else _shown(found, array, grids)
            left -= len(chunks)
            if len(chunks):
                yield chunks
            if left <= 0:
                break


def _shown(chunks: ChunkTable, array: ArrayInventory, grids: NDArray[np.int64]) -> ChunkTable:
    """Return those chunks that are shown, with the indices that they then have."""
    index = chunks.index - array.first_chunks[chunks.members]
    inside = (index >= 0) & (index < grids[chunks.members])
    return replace(chunks, index=index).take(np.flatnonzero(inside.all(axis=1)))


def references(tree: Tree) -> pa.RecordBatchReader:
    """Return where the chunks of a tree's granules lie, as Arrow batches.

    Parameters
    ----------
    tree
        The granules.

    Returns
    -------
    pyarrow.RecordBatchReader
        With the columns of `SCHEMA`; it is read from the store as it is read.
    """
    return pa.RecordBatchReader.from_batches(SCHEMA, _batches(tree))


def _batches(tree: Tree) -> Iterator[pa.RecordBatch]:
    names = tree.granules.names.cast(pa.large_string())
    for inventory, locations in sync(tree.inventories()):
        for path, array in inventory.arrays.items():
            if not tree.shows(path):
                continue
            shapes = array.grids
            firsts = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))]).astype(np.int64)
            seen = np.zeros(int(firsts[-1]), dtype=bool)
            for chunks in iterate_sync(chunks_of(tree.reader, inventory, locations, path)):
                seen[numbers_of(chunks.members, chunks.index, shapes, firsts)] = True
                yield _batch(chunks, inventory.rows, path, names)
            lost = np.flatnonzero(~seen)
            for start in range(0, len(lost), BATCH):
                chunks = _missing(lost[start : start + BATCH], shapes, firsts)
                yield _batch(chunks, inventory.rows, path, names)


def numbers_of(
    members: NDArray[np.int64],
    index: NDArray[np.int64],
    shapes: NDArray[np.int64],
    firsts: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the numbers of chunks, those of each granule in C order after those before."""
    number = np.zeros(len(members), dtype=np.int64)
    for axis in range(index.shape[1]):
        number = number * shapes[members, axis] + index[:, axis]
    return firsts[members] + number


def _missing(
    numbers: NDArray[np.int64], shapes: NDArray[np.int64], firsts: NDArray[np.int64]
) -> ChunkTable:
    """Return the chunks with some numbers, which aren't there."""
    members = np.searchsorted(firsts, numbers, side="right") - 1
    rest = numbers - firsts[members]
    index = np.zeros((len(numbers), shapes.shape[1]), dtype=np.int64)
    for axis in range(shapes.shape[1] - 1, -1, -1):
        rest, index[:, axis] = np.divmod(rest, shapes[members, axis])
    nothing = np.zeros(len(numbers), dtype=np.uint64)
    kinds = np.full(len(numbers), MISSING, dtype=np.uint8)
    return ChunkTable(members, index, kinds, [""] * len(numbers), nothing, nothing, {})


def _batch(
    chunks: ChunkTable, rows: NDArray[np.int64], path: str, names: pa.Array
) -> pa.RecordBatch:
    """Return chunks as a batch of `SCHEMA`."""
    count, rank = chunks.index.shape
    granules = pa.array(rows[chunks.members].astype(np.int32))
    ends = pa.array(np.arange(count + 1, dtype=np.int32) * rank)
    there = (chunks.kinds == NATIVE) | (chunks.kinds == VIRTUAL)
    missing = chunks.kinds == MISSING
    paths = pa.array(chunks.paths, pa.string())
    return pa.record_batch(
        [
            pa.DictionaryArray.from_arrays(granules, names),
            pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(count, dtype=np.int32)), pa.array([path])
            ),
            pa.ListArray.from_arrays(ends, pa.array(chunks.index.ravel())),
            pa.DictionaryArray.from_arrays(pa.array(chunks.kinds.astype(np.int8)), pa.array(KINDS)),
            _masked(paths, ~there),
            pa.array(chunks.offsets, mask=~there),
            pa.array(chunks.lengths, mask=missing),
            pa.nulls(count, pa.string())
            if chunks.checksums is None
            else pa.array(chunks.checksums, pa.string()),
        ],
        schema=SCHEMA,
    )


def _masked(values: pa.Array, mask: NDArray[np.bool_]) -> pa.Array:
    import pyarrow.compute as pc

    return pc.if_else(pa.array(mask), None, values) if mask.any() else values


def nbytes_by_container(tree: Tree) -> dict[str, int]:
    """Return how many bytes the chunks of a tree's granules have, by where they lie.

    Returns
    -------
    dict
        By the prefix of the virtual chunk container; by the name of the collection for those
        that it holds itself.
    """
    containers = _containers(tree.source)
    found: dict[str, int] = {}
    for inventory, locations in sync(tree.inventories()):
        for path in inventory.arrays:
            if not tree.shows(path):
                continue
            for chunks in iterate_sync(chunks_of(tree.reader, inventory, locations, path)):
                for place, size in _sizes(chunks, containers, tree.description).items():
                    found[place] = found.get(place, 0) + size
    return dict(sorted(found.items()))


def _sizes(chunks: ChunkTable, containers: Sequence[str], description: JSON) -> dict[str, int]:
    found: dict[str, int] = {}
    virtual = chunks.kinds == VIRTUAL
    own = int(chunks.lengths[~virtual].sum())
    if own or not virtual.any():
        found[str(description["collection"])] = own
    if virtual.any():
        files = pa.array(chunks.paths, pa.string()).dictionary_encode()
        codes = files.indices.to_numpy()[virtual]
        sizes = np.bincount(
            codes,
            weights=chunks.lengths[virtual].astype(np.float64),
            minlength=len(files.dictionary),
        )
        for url, size in zip(files.dictionary.to_pylist(), sizes.tolist(), strict=True):
            place = next((one for one in containers if url.startswith(one)), "")
            if size:
                found[place] = found.get(place, 0) + int(size)
    return found


def _containers(store: Store) -> list[str]:
    """Return the prefixes of a store's virtual chunk containers, the longest first."""
    if not isinstance(store, icechunk.IcechunkStore):
        return []
    known = store.session.config.virtual_chunk_containers or {}
    return sorted((quote(prefix, safe=":/") for prefix in known), key=len, reverse=True)
