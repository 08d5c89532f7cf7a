"""Where the chunks of a view lie, and whether the files there are still what they were.

Not good for a few granules of a large collection: Icechunk tells the chunks of an array from the
first to the last, and they are gone through until those of the view were found.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import batched
from urllib.parse import quote

import icechunk
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding
from zarr.core.sync import sync

from l2view.errors import AuthorizationError, ChunkError
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
from l2view.granules.reader import GranuleReader
from l2view.granules.table import GranuleTable
from l2view.stores.hierarchy import join
from l2view.virtual.join_array import chunk_keys
from l2view.virtual.store import CONCURRENCY, ViewStore, walk
from l2view.virtual.tree import Tree

READS = 256  # how many chunks of a granule are read together

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


async def array_chunks(
    reader: GranuleReader, table: GranuleTable, path: str
) -> AsyncIterator[ChunkTable]:
    """Yield the chunks that there are of the arrays at `path`, by the indices shown."""
    array = table.arrays[path]
    counts = array.grids.prod(axis=1)
    stored_grids = -(-array.shapes // np.maximum(array.chunk_shapes, 1))
    async for source in reader.layout.sources(table, path):
        remaining = int(counts[source.members].sum())
        variant = array.variants[array.variant_index[int(source.members[0])]]
        encoding = parse_chunk_key_encoding(variant["chunk_key_encoding"])
        async for chunks in stored_chunks(reader.source, source, stored_grids, encoding):
            if array.starts is not None:  # then indices are counted from what is shown
                index = chunks.index - array.first_chunks[chunks.members]
                inside = ((index >= 0) & (index < array.grids[chunks.members])).all(axis=1)
                chunks = replace(chunks, index=index).take(np.flatnonzero(inside))
            remaining -= len(chunks)
            if len(chunks):
                yield chunks
            if remaining <= 0:
                break


def _iterate_arrays(tree: Tree) -> Iterator[tuple[GranuleTable, str, Iterator[ChunkTable]]]:
    """Yield the paths of arrays that a tree shows, profile by profile, with their chunks."""
    for table in sync(tree.tables()):
        for path in filter(tree.shows, table.arrays):
            yield table, path, iterate_sync(array_chunks(tree.reader, table, path))


def references(tree: Tree) -> pa.RecordBatchReader:
    """Return where the chunks of a tree's granules lie, with the columns of `SCHEMA`.

    They are read from the store as the reader is read.
    """
    return pa.RecordBatchReader.from_batches(SCHEMA, _batches(tree))


def _batches(tree: Tree) -> Iterator[pa.RecordBatch]:
    names = tree.granules.names.cast(pa.large_string())
    for table, path, tables in _iterate_arrays(tree):
        grids = table.arrays[path].grids
        offsets = chunk_offsets(grids)
        stored = np.zeros(int(offsets[-1]), dtype=bool)
        for chunks in tables:
            stored[chunk_numbers(chunks.members, chunks.index, grids, offsets)] = True
            yield _batch(chunks, table.rows, path, names)
        missing = np.flatnonzero(~stored)
        for start in range(0, len(missing), BATCH):
            chunks = _missing_chunks(missing[start : start + BATCH], grids, offsets)
            yield _batch(chunks, table.rows, path, names)


def chunk_offsets(grids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of chunks before each granule's, and of all, of shape (n + 1,)."""
    return np.concatenate([[0], np.cumsum(grids.prod(axis=1))]).astype(np.int64)


def chunk_numbers(
    members: NDArray[np.int64],
    index: NDArray[np.int64],
    grids: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the numbers of chunks: in C order, granule after granule."""
    number = np.zeros(len(members), dtype=np.int64)
    for axis in range(index.shape[1]):
        number = number * grids[members, axis] + index[:, axis]
    return offsets[members] + number


def _missing_chunks(
    numbers: NDArray[np.int64], grids: NDArray[np.int64], offsets: NDArray[np.int64]
) -> ChunkTable:
    """Return the chunks with some numbers as ones that aren't stored."""
    members = np.searchsorted(offsets, numbers, side="right") - 1
    number = numbers - offsets[members]
    index = np.zeros((len(numbers), grids.shape[1]), dtype=np.int64)
    for axis in range(grids.shape[1] - 1, -1, -1):
        number, index[:, axis] = np.divmod(number, grids[members, axis])
    zeros = np.zeros(len(numbers), dtype=np.uint64)
    kinds = np.full(len(numbers), MISSING, dtype=np.uint8)
    return ChunkTable(members, index, kinds, [""] * len(numbers), zeros, zeros, {})


def _batch(
    chunks: ChunkTable, rows: NDArray[np.int64], path: str, names: pa.Array
) -> pa.RecordBatch:
    """Return chunks as a batch of `SCHEMA`."""
    count, rank = chunks.index.shape
    list_offsets = pa.array(np.arange(count + 1, dtype=np.int32) * rank)
    no_object = (chunks.kinds != NATIVE) & (chunks.kinds != VIRTUAL)
    paths = pa.array(chunks.paths, pa.string())
    checksums = [None] * count if chunks.checksums is None else chunks.checksums
    path_codes = pa.array(np.zeros(count, dtype=np.int32))
    return pa.record_batch(
        [
            pa.DictionaryArray.from_arrays(rows[chunks.members].astype(np.int32), names),
            pa.DictionaryArray.from_arrays(path_codes, pa.array([path])),
            pa.ListArray.from_arrays(list_offsets, pa.array(chunks.index.ravel())),
            pa.DictionaryArray.from_arrays(chunks.kinds.astype(np.int8), pa.array(KINDS)),
            pc.if_else(pa.array(no_object), None, paths),
            pa.array(chunks.offsets, mask=no_object),
            pa.array(chunks.lengths, mask=chunks.kinds == MISSING),
            pa.array(checksums, pa.string()),
        ],
        schema=SCHEMA,
    )


def nbytes_by_container(tree: Tree) -> dict[str, int]:
    """Return how many bytes the chunks of a tree's granules have, by where they lie.

    That is the prefix of a virtual chunk container, or the collection that holds them itself.
    """
    containers: list[str] = []
    if isinstance(tree.source, icechunk.IcechunkStore):
        prefixes = tree.source.session.config.virtual_chunk_containers or {}
        containers = sorted((quote(p, safe=":/") for p in prefixes), key=len, reverse=True)
    totals: Counter[str] = Counter()
    for _, _, tables in _iterate_arrays(tree):
        for chunks in tables:
            virtual = chunks.kinds == VIRTUAL
            in_store = int(chunks.lengths[~virtual].sum())
            if in_store or not virtual.any():
                totals[str(tree.description["collection"])] += in_store
            files = pa.array(chunks.paths, pa.string()).dictionary_encode()
            codes, lengths = files.indices.to_numpy()[virtual], chunks.lengths[virtual]
            sizes = np.bincount(codes, lengths.astype(np.float64), len(files.dictionary))
            for url, size in zip(files.dictionary.to_pylist(), sizes.tolist(), strict=True):
                if size:
                    totals[next(filter(url.startswith, containers), "")] += int(size)
    return dict(sorted(totals.items()))


def verify_granules(tree: Tree) -> Iterator[tuple[str, str | None]]:
    """Yield the name of each granule, and what is wrong with its files, None where nothing is.

    One byte of a chunk of each file is read: where the file isn't the one that was referred to,
    that is an error. Of granules that l2view didn't ingest it is a chunk of each array.
    """
    store = ViewStore(replace(tree, crop=None))

    async def verify(names: Sequence[str]) -> list[str | None]:
        await store.shape.documents(names)
        return await asyncio.gather(*(_verify_granule(store, name) for name in names))

    for names in batched(tree.granules.names.to_pylist(), CONCURRENCY):
        yield from zip(names, sync(verify(names)), strict=True)


async def _verify_granule(store: ViewStore, name: str) -> str | None:
    tree = store.tree
    row = tree.granules.row(name)
    assert row is not None
    location = tree.granules.location(row)
    probes = await tree.layout.probes(location)
    try:
        if probes is None:  # a byte of the first chunk that there is of each array
            async for path, node in walk(store.shape, [name]):
                if node["node_type"] == "array":
                    for key in chunk_keys(path, node):
                        if await _read_byte(store, key):
                            break
        for probe in probes or ():
            path, is_array, _ = probe.partition("/c/*")
            keys: Iterable[str] = [join(name, probe)]
            if is_array:
                document = await tree.layout.document(location, path)
                keys = [] if document is None else chunk_keys(join(name, path), document)
            for batch in batched(keys, READS):
                await asyncio.gather(*(_read_byte(store, key) for key in batch))
    except AuthorizationError:
        raise
    except ChunkError as error:
        return str(error)
    return None


async def _read_byte(store: ViewStore, key: str) -> bool:
    """Read the first byte of a chunk, and return whether there is one."""
    byte = await store.get(key, default_buffer_prototype(), RangeByteRequest(0, 1))
    return byte is not None
