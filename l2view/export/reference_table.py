"""The chunk references of one variable of many granules, as columns: one element a chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import batched

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding
from zarr.core.sync import sync

from l2view.errors import ChunkError, ExportError
from l2view.granules.chunks import INLINE, ChunkTable, iterate_sync
from l2view.granules.table import GranuleTable
from l2view.stores.composed import resolve_chunk
from l2view.stores.hierarchy import join
from l2view.virtual.references import array_chunks, chunk_numbers, chunk_offsets
from l2view.virtual.tree import Tree

CONCURRENT_READS = 256  # how many chunks are read together


@dataclass
class ReferenceTable:
    """The chunk references of one array of n granules, each granule's in C order."""

    shapes: NDArray[np.int64]  # what is shown of each granule's array, of shape (n, rank)
    grids: NDArray[np.int64]  # each granule's number of chunks along each axis, of shape (n, rank)
    starts: NDArray[np.int64]  # the position of each granule's first chunk, of shape (n + 1,)
    file_codes: NDArray[np.int32]  # the position of each chunk's file in `urls`, -1 for none
    offsets: NDArray[np.uint64]  # in bytes
    lengths: NDArray[np.uint64]
    urls: list[str] = field(default_factory=list)
    inlined: dict[int, bytes] = field(default_factory=dict)  # chunks in no file, by position

    def slice_of(self, member: int) -> slice:
        """Return the positions of a granule's chunks."""
        return slice(int(self.starts[member]), int(self.starts[member + 1]))

    def urls_of(self, member: int) -> list[str]:
        """Return the URL of each of a granule's chunks, empty for a chunk in no file."""
        codes = self.file_codes[self.slice_of(member)]
        return [self.urls[code] if code >= 0 else "" for code in codes.tolist()]


@dataclass(frozen=True, eq=False)
class ProfileReferences:
    """Reads the chunk references of the granules of one profile."""

    tree: Tree
    table: GranuleTable
    copy_native: bool  # whether to read chunks that nothing else can refer to, to write them again

    @cached_property
    def references(self) -> dict[str, ReferenceTable]:
        """The references of all arrays that are shown, by path."""
        return {path: self.read(path) for path in self.table.arrays if self.tree.shows(path)}

    def read(self, path: str) -> ReferenceTable:
        """Read the references of the arrays at a path below their granules.

        A chunk that nothing can refer to, and that isn't to be copied, is an ExportError.
        """
        array, tree = self.table.arrays[path], self.tree
        if (array.begins % np.maximum(array.chunk_shapes, 1)).any():
            raise ExportError(
                f"{path} is cropped within its chunks, to a part of which nothing can refer; crop "
                "with sel(exact=False), or copy the view with to_zarr()"
            )
        grids = array.grids
        starts = chunk_offsets(grids)
        offsets, lengths = np.zeros((2, starts[-1]), dtype=np.uint64)
        codes = np.full(starts[-1], -1, dtype=np.int32)
        shapes = array.ends - array.begins
        references = ReferenceTable(shapes, grids, starts, codes, offsets, lengths)
        url_codes: dict[str, int] = {}
        for chunks in iterate_sync(array_chunks(tree.reader, self.table, path)):
            positions = chunk_numbers(chunks.members, chunks.index, grids, starts)
            files = pa.array(chunks.paths, pa.string()).dictionary_encode()
            # What has no URL is a value of the store, or within its manifest.
            codes_of_files = [
                url_codes.setdefault(file, len(url_codes)) if "://" in file else -1
                for file in files.dictionary.to_pylist()
            ]
            chunk_codes = np.array(codes_of_files, dtype=np.int32)[files.indices.to_numpy()]
            in_file = chunk_codes >= 0
            codes[positions] = chunk_codes
            offsets[positions] = np.where(in_file, chunks.offsets, 0)
            lengths[positions] = np.where(in_file, chunks.lengths, 0)
            for index, data in chunks.inlined.items():
                references.inlined[int(positions[index])] = bytes(data)
            native = np.flatnonzero(~in_file & (chunks.kinds != INLINE))
            if len(native) and not self.copy_native:
                rows = np.unique(self.table.rows[chunks.members[native]])
                raise ExportError(
                    f"chunks of {path} are values of {tree.description['collection']} itself, to "
                    f"which nothing else can refer ({tree.granules.sample_names(rows)}); pass "
                    "copy_native=True to copy them, or leave the array out with variables="
                )
            for batch in batched(native.tolist(), CONCURRENT_READS):
                contents = sync(self._read_native(path, chunks, batch))
                numbers = positions[list(batch)].tolist()
                references.inlined |= dict(zip(numbers, contents, strict=True))
        references.urls = list(url_codes)
        return references

    async def _read_native(
        self, path: str, chunks: ChunkTable, batch: Sequence[int]
    ) -> list[bytes]:
        """Read chunks from the store that holds them."""
        array, tree = self.table.arrays[path], self.tree

        async def read(position: int) -> bytes:
            member = int(chunks.members[position])
            variant = array.variants[array.variant_index[member]]
            encoding = parse_chunk_key_encoding(variant["chunk_key_encoding"])
            index = chunks.index[position] + array.first_chunks[member]
            chunk_key = encoding.encode_chunk_key(tuple(index.tolist()))
            row = int(self.table.rows[member])
            source_key = await resolve_chunk(tree.reader.chunk(row, join(path, chunk_key)))
            assert isinstance(source_key, str)
            data = await tree.source.get(source_key, default_buffer_prototype())
            if data is None:
                raise ChunkError(f"{source_key} is gone from {tree.description['collection']}")
            return data.to_bytes()

        return list(await asyncio.gather(*map(read, batch)))


def profile_references(tree: Tree, *, copy_native: bool) -> list[ProfileReferences]:
    """Return what reads the references of a tree's granules, profile by profile."""
    return [ProfileReferences(tree, table, copy_native) for table in sync(tree.tables())]
