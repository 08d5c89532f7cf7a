"""One array over those of many granules, chunk by chunk.

A chunk of the joined array is a granule's own chunk as it lies in its file, where that has the
same encoding, shape and extent. Any other is computed when it is read: the region of the granule's
array that it covers is read, brought into the common encoding, and encoded.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.abc.codec import CodecPipeline
from zarr.core.array import create_codec_pipeline
from zarr.core.array_spec import ArraySpec, parse_array_config
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding
from zarr.core.common import compress_rle
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.storage import StorePath

from l2view.arrays.encoding import ArrayEncoding, encodable_codecs
from l2view.errors import AuthorizationError, ChunkError
from l2view.granules.chunks import grid_of
from l2view.granules.profile import DEFAULT_KEYS, with_leading_axis
from l2view.granules.reader import GranuleReader, NeedsMetadata, open_array
from l2view.granules.table import ArrayTable, regular_grid
from l2view.stores.composed import ChunkSource, resolve_chunk
from l2view.stores.hierarchy import JSON, join
from l2view.text import first_line
from l2view.virtual.pickling import Compressed, field_state


@dataclass(frozen=True, eq=False)
class JoinedArray:
    """An array over the arrays of n granules."""

    rows: NDArray[np.int64]  # the granules, of shape (n,)
    table: ArrayTable
    encoding: ArrayEncoding
    attributes: JSON
    dimensions: tuple[str | None, ...]
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]  # along `axis` it is that of each granule
    axis: int | None = None  # along which granules are concatenated; None for a new first axis

    def __getstate__(self) -> JSON:
        columns: Any = {
            name: Compressed(column)
            for name in ("variant_index", "shapes", "chunk_shapes", "starts", "stops")
            if (column := getattr(self.table, name)) is not None
        }
        return field_state(self) | {"table": replace(self.table, **columns)}

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where what is shown of each granule begins, of shape (n, rank)."""
        return self.table.begins

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """How much is shown of each granule along each axis, of shape (n, rank)."""
        return self.table.lengths

    @property
    def _extent(self) -> NDArray[np.int64]:
        """The shape without the new axis of a stack."""
        return np.array(self.shape[1:] if self.axis is None else self.shape, dtype=np.int64)

    @cached_property
    def is_passthrough(self) -> NDArray[np.bool_]:
        """Whether chunks of each granule may pass unchanged, of shape (n,)."""
        unchanged = [self.encoding.accepts_unchanged(v) for v in self.table.variants]
        stackable = self.axis is not None or with_leading_axis(self.encoding.codecs) is not None
        chunks = self.table.chunk_shapes
        same_chunks = chunks == np.array(self.chunk_shape, dtype=np.int64)
        aligned = self.starts % np.maximum(chunks, 1) == 0
        if self.axis is not None:
            same_chunks[:, self.axis] = True
        passthrough = np.array(unchanged, dtype=bool)[self.table.variant_index] & stackable
        return np.asarray(passthrough & same_chunks.all(axis=1) & aligned.all(axis=1))

    @cached_property
    def all_passthrough(self) -> NDArray[np.bool_]:
        """Whether all chunks of each granule pass unchanged, of shape (n,)."""
        chunks = np.maximum(self.table.chunk_shapes, 1)
        # A chunk that is cut off by the granule's end, where the joined array goes on.
        overlong = (self.lengths % chunks != 0) & (self.lengths < self._extent)
        if self.axis is not None:
            members = np.repeat(np.arange(len(self.rows)), np.diff(self.chunk_offsets))
            cut = self.chunk_lengths != chunks[members, self.axis]
            overlong[:, self.axis] = False
            overlong[members[cut], self.axis] = True
        return np.asarray(self.is_passthrough & ~overlong.any(axis=1))

    @cached_property
    def same_fill(self) -> NDArray[np.bool_]:
        """Whether a chunk that isn't stored reads the same in each granule, of shape (n,)."""
        fill, data_type = json.dumps(self.encoding.fill_value), json.dumps(self.encoding.data_type)
        same = [
            json.dumps(variant["fill_value"]) == fill
            and json.dumps(variant["data_type"]) == data_type
            and self.encoding.accepts_unchanged({**variant, "codecs": list(self.encoding.codecs)})
            for variant in self.table.variants
        ]
        return np.array(same, dtype=bool)[self.table.variant_index]

    def with_encodable_codecs(self) -> JoinedArray:
        """Return the array with codecs that encode where chunks are computed.

        Without shards: inner chunks must divide them, and a chunk that is cut has another length.
        """
        codecs = encodable_codecs(self.encoding.codecs, self.encoding.data_type)
        if codecs == self.encoding.codecs or (self.all_passthrough & self.same_fill).all():
            return self
        return replace(self, encoding=replace(self.encoding, codecs=codecs))

    @cached_property
    def chunk_offsets(self) -> NDArray[np.int64]:
        """The number of chunks along `axis` before each granule, and of all, of shape (n + 1,)."""
        assert self.axis is not None
        chunks = np.maximum(self.table.chunk_shapes[:, self.axis], 1)
        return np.concatenate([[0], np.cumsum(-(-self.lengths[:, self.axis] // chunks))])

    @cached_property
    def chunk_lengths(self) -> NDArray[np.int64]:
        """The lengths of all chunks along `axis`, of shape (chunk_offsets[-1],)."""
        chunks = np.maximum(self.table.chunk_shapes[:, self.axis], 1)
        counts = np.diff(self.chunk_offsets)
        lengths = np.repeat(chunks, counts)
        (present,) = np.nonzero(counts)
        remainders = self.lengths[:, self.axis] - (counts - 1) * chunks
        lengths[self.chunk_offsets[present + 1] - 1] = remainders[present]
        # Zarr lets the last chunk of all reach beyond the end, as it does in its file; but not
        # if it is computed anyway, or if only without that all are of one length.
        alone, passes = len(self.rows) == 1, self.is_passthrough[present[-1:]].any()
        if (passes and alone) or ((passes or alone) and (lengths != lengths[:1]).any()):
            lengths[-1:] = chunks[present[-1:]]
        return lengths

    @cached_property
    def is_regular(self) -> bool:
        """Whether the chunk grid is regular."""
        return self.axis is None or bool((self.chunk_lengths == self.chunk_lengths[:1]).all())

    @cached_property
    def document(self) -> JSON:
        """The Zarr v3 document."""
        encoding, chunks = self.encoding, list[Any](self.chunk_shape)
        grid = regular_grid(chunks)
        if self.axis is None:
            codecs = with_leading_axis(encoding.codecs)
            assert codecs is not None
            encoding, grid = replace(encoding, codecs=tuple(codecs)), regular_grid([1, *chunks])
        elif self.is_regular:
            longest = self.table.chunk_shapes[:, self.axis].max(initial=1)
            chunks[self.axis] = int(self.chunk_lengths[0] if len(self.chunk_lengths) else longest)
            grid = regular_grid(chunks)
        else:
            chunks[self.axis] = compress_rle(self.chunk_lengths.tolist())
            configuration = {"kind": "inline", "chunk_shapes": chunks}
            grid = {"name": "rectilinear", "configuration": configuration}
        return array_document(encoding, self.shape, grid, self.dimensions, self.attributes)

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """The number of chunks along each axis."""
        chunks = self.chunk_shape if self.axis is not None else (1, *self.chunk_shape)
        counts = [-(-n // c) for n, c in zip(self.shape, chunks, strict=True)]
        if self.axis is not None:
            counts[self.axis] = int(self.chunk_offsets[-1])
        return tuple(counts)

    def _locate(self, index: Sequence[int]) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """Return the member that a chunk is of, where it begins in what is shown, and its shape.

        The chunk may reach beyond what is shown of the granule.
        """
        shape = np.array(self.chunk_shape, dtype=np.int64)
        if self.axis is None:
            return index[0], np.array(index[1:], dtype=np.int64) * shape, shape
        axis = self.axis
        member = int(np.searchsorted(self.chunk_offsets, index[axis], side="right")) - 1
        own = np.array(index, dtype=np.int64)
        own[axis] -= self.chunk_offsets[member]
        shape[axis] = self.table.chunk_shapes[member, axis]
        start = own * shape
        shape[axis] = self.chunk_lengths[index[axis]]
        return member, start, shape

    def _own_key(
        self, member: int, start: NDArray[np.int64], shape: NDArray[np.int64]
    ) -> str | None:
        """Return the key below its granule of a chunk that passes unchanged, else None."""
        if not self.is_passthrough[member]:
            return None
        chunks = self.table.chunk_shapes[member]
        extent = self._extent
        if self.axis is not None:
            if shape[self.axis] != chunks[self.axis]:
                return None
            extent[self.axis] = self.lengths[member, self.axis]
        # What lies beyond the granule's own extent may be anything, and is shown where the
        # joined array is longer.
        if np.any(np.minimum(start + shape, extent) > self.lengths[member]):
            return None
        own = (self.starts[member] + start) // np.maximum(chunks, 1)
        variant = self.table.variants[self.table.variant_index[member]]
        encoding = parse_chunk_key_encoding(variant["chunk_key_encoding"])
        return join(self.table.path, encoding.encode_chunk_key(tuple(own.tolist())))

    def find(self, reader: GranuleReader, key: str) -> ChunkSource:
        """Return where the chunk at `key` comes from."""
        index = chunk_index(key, self.grid)
        if index is None:
            return None
        member, start, shape = self._locate(index)
        if np.any(start >= self.lengths[member]):
            return None
        own = self._own_key(member, start, shape)
        if own is None:
            return self._transcode(reader, member, start, shape)
        chunk = reader.chunk(int(self.rows[member]), own)
        if chunk is None or self.same_fill[member]:
            return chunk
        return ChunkOrFill(chunk, self._transcode(reader, member, start, shape))

    def _transcode(
        self, reader: GranuleReader, member: int, start: NDArray[np.int64], shape: NDArray[np.int64]
    ) -> TranscodedChunk:
        """Return the chunk that covers a region of a granule."""
        begin = self.starts[member] + start
        end = begin + np.minimum(self.lengths[member] - start, shape)
        window = tuple(map(slice, begin.tolist(), end.tolist()))
        return TranscodedChunk(reader, self, member, window, tuple(shape.tolist()))

    @cached_property
    def _pipeline(self) -> tuple[ArrayV3Metadata, CodecPipeline]:
        """What encodes chunks with the axes of a granule's array."""
        ones = [1] * self.table.rank
        document = array_document(self.encoding, ones, regular_grid(ones), [None] * len(ones))
        metadata = ArrayV3Metadata.from_dict(document)
        return metadata, create_codec_pipeline(metadata)

    def chunk_of(
        self, stored: NDArray[Any], document: JSON, shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """Return a granule's stored values in the encoding, with the fill value up to `shape`."""
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
    """A chunk that holds a window of a granule's array in the encoding of a joined one.

    The chunk's `shape` may reach beyond the `window`, where it holds the fill value.
    """

    reader: GranuleReader
    array: JoinedArray
    member: int
    window: tuple[slice, ...]
    shape: tuple[int, ...]

    async def read(self, prototype: BufferPrototype) -> Buffer | None:
        """Return the encoded chunk.

        A `ChunkError` says that values can't be read, or brought into the encoding.
        """
        table, row = self.array.table, int(self.array.rows[self.member])
        try:
            document = table.document(self.member)
            array = open_array(StorePath(self.reader.store(row), table.path), document)
            stored = np.asarray(await array.getitem(self.window))
            chunk = await asyncio.to_thread(self.array.chunk_of, stored, document, self.shape)
        except AuthorizationError:
            raise
        except Exception as error:  # codecs raise what they like
            name = await asyncio.to_thread(self.reader.granules.name, row)
            raise ChunkError(f"{name}/{table.path} can't be read: {first_line(error)}") from error
        return await self.array.encode(chunk, prototype)


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
