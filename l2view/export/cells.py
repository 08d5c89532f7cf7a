"""The references of an array of many granules, held as columns: one cell a chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding
from zarr.core.sync import sync

from l2view.errors import ChunkError, ExportError
from l2view.granules import Location
from l2view.granules.chunks import INLINE, ChunkTable, iterate_sync
from l2view.granules.inventory import Inventory
from l2view.stores.hierarchy import join
from l2view.virtual.references import chunk_numbers, inventory_chunks
from l2view.virtual.tree import Tree

READS = 256
"""How many chunks are read together."""


@dataclass
class Cells:
    """The chunks of one array of n granules, each granule's in C order after those before.

    Attributes
    ----------
    grids
        The number of chunks of each granule along each axis, of shape (n, rank).
    firsts
        The number of the first chunk of each granule, and of all, of shape (n + 1,).
    codes
        The number of each chunk's file among `urls`, -1 where it lies in none.
    urls
        The files.
    offsets, lengths
        In bytes.
    inlined
        The bytes of chunks that lie in no file, by number.
    """

    grids: NDArray[np.int64]
    firsts: NDArray[np.int64]
    codes: NDArray[np.int32]
    offsets: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    urls: list[str] = field(default_factory=list)
    inlined: dict[int, bytes] = field(default_factory=dict)

    def locations(self, member: int) -> list[str]:
        """Return the URL of each of a granule's chunks, empty where it lies in no file."""
        codes = self.codes[self.firsts[member] : self.firsts[member + 1]]
        return [self.urls[code] if code >= 0 else "" for code in codes.tolist()]

    def own(self, member: int) -> slice:
        """Return which chunks are a granule's."""
        return slice(int(self.firsts[member]), int(self.firsts[member + 1]))


def cells(
    tree: Tree,
    inventory: Inventory,
    locations: Sequence[Location],
    path: str,
    *,
    copy_native: bool,
) -> Cells:
    """Return the references of the arrays at `path`.

    Parameters
    ----------
    tree
        The granules.
    inventory, locations
        Of one profile.
    path
        The arrays' path below their granules.
    copy_native
        Whether chunks that nothing else can refer to are read, to be written again.

    Raises
    ------
    ExportError
        Where there are such, and they aren't to be copied.
    """
    array = inventory.arrays[path]
    if (array.begins % np.maximum(array.chunk_shapes, 1)).any():
        raise ExportError(
            f"{path} is cropped within its chunks, to a part of which nothing can refer; crop with "
            "sel(exact=False), or copy the view with to_zarr()"
        )
    shapes = array.grids
    firsts = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))]).astype(np.int64)
    total = int(firsts[-1])
    found = Cells(
        grids=shapes,
        firsts=firsts,
        codes=np.full(total, -1, dtype=np.int32),
        offsets=np.zeros(total, dtype=np.uint64),
        lengths=np.zeros(total, dtype=np.uint64),
    )
    known: dict[str, int] = {}
    for chunks in iterate_sync(inventory_chunks(tree.reader, inventory, locations, path)):
        numbers = chunk_numbers(chunks.members, chunks.index, shapes, firsts)
        files = pa.array(chunks.paths, pa.string()).dictionary_encode()
        places = files.dictionary.to_pylist()
        # What has no URL is a value of the store, or within its manifest.
        kept = [known.setdefault(one, len(known)) if "://" in one else -1 for one in places]
        codes = np.array(kept, dtype=np.int32)[files.indices.to_numpy()]
        referred = codes >= 0
        found.codes[numbers] = codes
        found.offsets[numbers] = np.where(referred, chunks.offsets, 0)
        found.lengths[numbers] = np.where(referred, chunks.lengths, 0)
        for position, data in chunks.inlined.items():
            found.inlined[int(numbers[position])] = bytes(data)
        native = np.flatnonzero(~referred & (chunks.kinds != INLINE))
        if len(native):
            if not copy_native:
                raise _native(tree, inventory, path, chunks, native)
            for some in np.array_split(native, -(-len(native) // READS)):
                read = sync(_read(tree, inventory, locations, path, chunks, some))
                found.inlined |= dict(zip(numbers[some].tolist(), read, strict=True))
    found.urls = list(known)
    return found


async def _read(
    tree: Tree,
    inventory: Inventory,
    locations: Sequence[Location],
    path: str,
    chunks: ChunkTable,
    positions: NDArray[np.int64],
) -> list[bytes]:
    """Read some chunks from the store that holds them."""
    array = inventory.arrays[path]

    async def one(position: int) -> bytes:
        member = int(chunks.members[position])
        encoding = parse_chunk_key_encoding(
            array.variants[array.variant_index[member]]["chunk_key_encoding"]
        )
        index = chunks.index[position] + array.first_chunks[member]
        key = encoding.encode_chunk_key(tuple(index.tolist()))
        source = tree.layout.source_key(locations[member], join(path, key))
        assert source is not None
        data = await tree.source.get(source, default_buffer_prototype())
        if data is None:
            raise ChunkError(f"{source} is gone from {tree.description['collection']}")
        return data.to_bytes()

    return list(await asyncio.gather(*map(one, positions.tolist())))


def _native(
    tree: Tree, inventory: Inventory, path: str, chunks: ChunkTable, positions: NDArray[np.int64]
) -> ExportError:
    rows = np.unique(inventory.rows[chunks.members[positions]])
    names = tree.granules.sample_names(rows)
    return ExportError(
        f"chunks of {path} are values of {tree.description['collection']} itself, to which "
        f"nothing else can refer ({names}); pass copy_native=True to copy them, or leave "
        "the array out with variables="
    )
