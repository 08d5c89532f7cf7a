"""The chunk references of one variable of many granules, as columns: one element a chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import batched
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding
from zarr.core.sync import sync

from l2view.errors import ChunkError, ExportError
from l2view.granules import Location
from l2view.granules.chunks import INLINE, ChunkTable, iterate_sync
from l2view.granules.table import GranuleTable
from l2view.stores.hierarchy import join
from l2view.virtual.references import array_chunks, chunk_numbers
from l2view.virtual.tree import Tree

CONCURRENT_READS = 256
"""How many chunks are read together."""


@dataclass
class ReferenceTable:
    """The chunk references of one array of n granules, each granule's in C order.

    Attributes
    ----------
    grids
        The number of chunks of each granule along each axis, of shape (n, rank).
    starts
        The position of each granule's first chunk, and the number of chunks, of shape (n + 1,).
    file_codes
        The position of each chunk's file in `urls`, -1 for a chunk in no file.
    offsets, lengths
        In bytes.
    urls
        The files.
    inlined
        The bytes of chunks in no file, by position.
    """

    grids: NDArray[np.int64]
    starts: NDArray[np.int64]
    file_codes: NDArray[np.int32]
    offsets: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    urls: list[str] = field(default_factory=list)
    inlined: dict[int, bytes] = field(default_factory=dict)

    @classmethod
    def without_references(cls, grids: NDArray[np.int64]) -> Self:
        """Return a table in which no chunk has a place."""
        starts = np.concatenate([[0], np.cumsum(grids.prod(axis=1))]).astype(np.int64)
        count = int(starts[-1])
        return cls(
            grids,
            starts,
            np.full(count, -1, dtype=np.int32),
            np.zeros(count, dtype=np.uint64),
            np.zeros(count, dtype=np.uint64),
        )

    def slice_of(self, member: int) -> slice:
        """Return the positions of a granule's chunks."""
        return slice(int(self.starts[member]), int(self.starts[member + 1]))

    def urls_of(self, member: int) -> list[str]:
        """Return the URL of each of a granule's chunks, empty for a chunk in no file."""
        codes = self.file_codes[self.slice_of(member)]
        return [self.urls[code] if code >= 0 else "" for code in codes.tolist()]


def read_references(
    tree: Tree,
    granule_table: GranuleTable,
    locations: Sequence[Location],
    path: str,
    *,
    copy_native: bool,
) -> ReferenceTable:
    """Read the references of the arrays at `path`.

    Parameters
    ----------
    tree
        The granules.
    granule_table, locations
        Of one profile.
    path
        The arrays' path below their granules.
    copy_native
        Whether to read chunks that nothing else can refer to, to be written again.

    Raises
    ------
    ExportError
        Where there are such chunks, and they aren't to be copied.
    """
    array = granule_table.arrays[path]
    if (array.begins % np.maximum(array.chunk_shapes, 1)).any():
        raise ExportError(
            f"{path} is cropped within its chunks, to a part of which nothing can refer; crop with "
            "sel(exact=False), or copy the view with to_zarr()"
        )
    table = ReferenceTable.without_references(array.grids)
    url_codes: dict[str, int] = {}
    for chunks in iterate_sync(array_chunks(tree.reader, granule_table, locations, path)):
        positions = chunk_numbers(chunks.members, chunks.index, table.grids, table.starts)
        files = pa.array(chunks.paths, pa.string()).dictionary_encode()
        # What has no URL is a value of the store, or within its manifest.
        codes_of_files = [
            url_codes.setdefault(file, len(url_codes)) if "://" in file else -1
            for file in files.dictionary.to_pylist()
        ]
        codes = np.array(codes_of_files, dtype=np.int32)[files.indices.to_numpy()]
        in_file = codes >= 0
        table.file_codes[positions] = codes
        table.offsets[positions] = np.where(in_file, chunks.offsets, 0)
        table.lengths[positions] = np.where(in_file, chunks.lengths, 0)
        for index, data in chunks.inlined.items():
            table.inlined[int(positions[index])] = bytes(data)
        native = np.flatnonzero(~in_file & (chunks.kinds != INLINE))
        if len(native) and not copy_native:
            rows = np.unique(granule_table.rows[chunks.members[native]])
            raise ExportError(
                f"chunks of {path} are values of {tree.description['collection']} itself, to "
                f"which nothing else can refer ({tree.granules.sample_names(rows)}); pass "
                "copy_native=True to copy them, or leave the array out with variables="
            )
        for batch in batched(native.tolist(), CONCURRENT_READS):
            contents = sync(_read_chunks(tree, granule_table, locations, path, chunks, batch))
            table.inlined |= dict(zip(positions[list(batch)].tolist(), contents, strict=True))
    table.urls = list(url_codes)
    return table


async def _read_chunks(
    tree: Tree,
    granule_table: GranuleTable,
    locations: Sequence[Location],
    path: str,
    chunks: ChunkTable,
    batch: Sequence[int],
) -> list[bytes]:
    """Read chunks from the store that holds them."""
    array = granule_table.arrays[path]

    async def read(position: int) -> bytes:
        member = int(chunks.members[position])
        variant = array.variants[array.variant_index[member]]
        encoding = parse_chunk_key_encoding(variant["chunk_key_encoding"])
        index = chunks.index[position] + array.first_chunks[member]
        chunk_key = encoding.encode_chunk_key(tuple(index.tolist()))
        source_key = tree.layout.source_key(locations[member], join(path, chunk_key))
        assert source_key is not None
        data = await tree.source.get(source_key, default_buffer_prototype())
        if data is None:
            raise ChunkError(f"{source_key} is gone from {tree.description['collection']}")
        return data.to_bytes()

    return list(await asyncio.gather(*map(read, batch)))


def read_profiles(
    tree: Tree, *, copy_native: bool
) -> Iterator[tuple[GranuleTable, Sequence[Location], dict[str, ReferenceTable]]]:
    """Yield the granules of each profile with the references of their arrays by path."""
    for granule_table, locations in sync(tree.tables()):
        tables = {
            path: read_references(tree, granule_table, locations, path, copy_native=copy_native)
            for path in granule_table.arrays
            if tree.shows(path)
        }
        yield granule_table, locations, tables
