"""Chunks of a view: their keys, and those that are computed from a granule's array."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.abc.codec import CodecPipeline
from zarr.core.array import create_codec_pipeline
from zarr.core.array_spec import ArraySpec, parse_array_config
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.storage import StorePath

from l2view.arrays.encoding import ArrayEncoding
from l2view.errors import AuthorizationError, ChunkError
from l2view.granules.chunks import grid_of
from l2view.granules.profile import DEFAULT_KEYS
from l2view.granules.reader import GranuleReader, NeedsMetadata, open_array
from l2view.granules.table import regular_grid
from l2view.stores.composed import resolve_chunk
from l2view.stores.hierarchy import JSON, join
from l2view.text import first_line


@dataclass(frozen=True, eq=False)
class ChunkEncoder:
    """Encodes values as chunks with the axes of a granule's array."""

    encoding: ArrayEncoding
    rank: int

    @cached_property
    def _pipeline(self) -> tuple[ArrayV3Metadata, CodecPipeline]:
        ones = [1] * self.rank
        document = array_document(self.encoding, ones, regular_grid(ones), [None] * self.rank)
        metadata = ArrayV3Metadata.from_dict(document)
        return metadata, create_codec_pipeline(metadata)

    def chunk_of(
        self, stored: NDArray[Any], document: JSON, shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """Return stored values in the encoding, with the fill value up to `shape`."""
        values = self.encoding.encode(stored, document)
        if values.shape == shape:
            return np.ascontiguousarray(values)
        chunk = np.full(shape, self._pipeline[0].fill_value, dtype=values.dtype)
        chunk[tuple(map(slice, values.shape))] = values
        return chunk

    async def encode(self, chunk: NDArray[Any], prototype: BufferPrototype) -> Buffer | None:
        """Return an encoded chunk."""
        metadata, pipeline = self._pipeline
        spec = ArraySpec(
            shape=chunk.shape,
            dtype=metadata.dtype,
            fill_value=metadata.fill_value,
            config=parse_array_config({"write_empty_chunks": True}),
            prototype=prototype,
        )
        (encoded,) = await pipeline.encode([(prototype.nd_buffer.from_numpy_array(chunk), spec)])
        return encoded


@dataclass(frozen=True, eq=False)
class TranscodedChunk:
    """A chunk that holds a window of a granule's array in another encoding.

    `document` is the array's own. The chunk's `shape` may reach beyond the `window`, where it holds
    the fill value.
    """

    reader: GranuleReader
    row: int
    path: str
    document: JSON
    window: tuple[slice, ...]
    shape: tuple[int, ...]
    encoder: ChunkEncoder

    async def read(self, prototype: BufferPrototype) -> Buffer | None:
        """Return the encoded chunk.

        A `ChunkError` says that values can't be read, or brought into the encoding.
        """
        try:
            array = open_array(StorePath(self.reader.store(self.row), self.path), self.document)
            stored = np.asarray(await array.getitem(self.window))
            encode = self.encoder.chunk_of
            chunk = await asyncio.to_thread(encode, stored, self.document, self.shape)
        except AuthorizationError:
            raise
        except Exception as error:  # codecs raise what they like
            name = await asyncio.to_thread(self.reader.granules.name, self.row)
            raise ChunkError(f"{name}/{self.path} can't be read: {first_line(error)}") from error
        return await self.encoder.encode(chunk, prototype)


@dataclass(frozen=True, eq=False)
class ChunkOrFill:
    """A granule's own chunk, or its fill value where the source store has none.

    The view's array has another fill value, so that `fill` computes such a chunk.
    """

    chunk: str | NeedsMetadata
    fill: TranscodedChunk

    async def read(self, prototype: BufferPrototype) -> Buffer | None:
        """Return the chunk."""
        key = await resolve_chunk(self.chunk)
        if not isinstance(key, str):
            return None
        buffer = await self.fill.reader.source.get(key, prototype)
        return await self.fill.read(prototype) if buffer is None else buffer


def array_document(
    encoding: ArrayEncoding,
    shape: Sequence[int],
    chunk_grid: JSON,
    dimensions: Sequence[str | None],
    attributes: JSON | None = None,
) -> JSON:
    """Return the Zarr v3 document of an array of a view."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": encoding.data_type,
        "chunk_grid": chunk_grid,
        "chunk_key_encoding": DEFAULT_KEYS,
        "fill_value": encoding.fill_value,
        "codecs": list(encoding.codecs),
        "attributes": attributes or {},
        "dimension_names": list(dimensions),
    }


def chunk_index(key: str, grid: Sequence[int]) -> tuple[int, ...] | None:
    """Return the index of the chunk with the key `key`, None where the grid has none.

    Examples
    --------
    >>> chunk_index("c/0/2", (1, 3)), chunk_index("c/0/3", (1, 3)), chunk_index("c", ())
    ((0, 2), None, ())
    """
    prefix, *numbers = key.split("/")
    if prefix != "c" or len(numbers) != len(grid) or not all(map(str.isdecimal, numbers)):
        return None
    index = tuple(map(int, numbers))
    return index if all(i < n for i, n in zip(index, grid, strict=True)) else None


def chunk_keys(path: str, document: JSON) -> Iterator[str]:
    """Yield the keys of all chunks that an array may have, by its path and document."""
    encoding = parse_chunk_key_encoding(document["chunk_key_encoding"])
    for index in np.ndindex(*grid_of(document)):
        yield join(path, encoding.encode_chunk_key(index))
