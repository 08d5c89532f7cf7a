"""Arrays whose cells are rows of a table, and the columns that the table then has."""

from __future__ import annotations

import itertools
import math
import os
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, ZstdCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.chunk_utils import ChunkTransform
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.storage import StorePath

from l2view.arrays.cache import CHUNKS
from l2view.arrays.codecs import at_once
from l2view.arrays.grid import Edges, Window, edges_of, regular_edges, size
from l2view.arrays.values import ValueDecoder
from l2view.errors import ChunkError, L2ViewError
from l2view.stores.hierarchy import get_values, join
from l2view.text import first_line

MAX_KEPT = 1 << 22
"""The most values of a coordinate that are kept in memory whole."""


type Index = tuple[int, ...]
"""The numbers of a chunk along each axis."""


@lru_cache(maxsize=1)
def _decode_slots(process: int) -> threading.BoundedSemaphore:
    """Return the semaphore that limits a process's decoding threads to its processors."""
    return threading.BoundedSemaphore((os.cpu_count() or 1) + 1)


@dataclass(frozen=True, eq=False)
class ChunkDecoder:
    """What arrays of one data type, chunk shape and codecs have in common.

    Attributes
    ----------
    dtype
        NumPy's dtype of what is stored.
    chunks
        The shape of a chunk, within shards of an inner one; None where chunks have several.
    shards
        How many chunks along each axis lie in one object.
    key
        Returns the key of an object by its place among the objects.
    transform
        What decodes a chunk at once, None where zarr must.
    spec
        What it takes to know of a chunk.
    zstd
        Whether chunks are nothing but numbers in the machine's byte order in Zstandard, which
        Arrow decompresses into memory that it has already.
    """

    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    shards: tuple[int, ...]
    key: Callable[[tuple[int, ...]], str]
    transform: ChunkTransform | None
    spec: ArraySpec | None
    zstd: bool = False

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> ChunkDecoder:
        """Return the decoder of an array, and of others like it."""
        metadata = array.metadata
        key = metadata.encode_chunk_key
        ones = (1,) * array.ndim
        if isinstance(metadata, ArrayV3Metadata) and hasattr(metadata.chunk_grid, "chunk_shapes"):
            return cls(array.dtype, None, ones, key, None, None)
        if array.shards is not None:
            pairs = zip(array.shards, array.chunks, strict=True)
            shards = tuple(shard // chunk for shard, chunk in pairs)
            return cls(array.dtype, array.chunks, shards, key, None, None)
        pipeline: Any = array.async_array.codec_pipeline
        config = array.async_array.config
        if not isinstance(metadata, ArrayV3Metadata):  # which says it, and the array doesn't
            config = replace(config, order=metadata.order)
        try:
            transform = ChunkTransform(codecs=at_once(tuple(pipeline)))
        except TypeError:  # of a codec that is asynchronous only
            return cls(array.dtype, array.chunks, ones, key, None, None)
        spec = ArraySpec(
            shape=array.chunks,
            dtype=metadata.dtype,
            fill_value=metadata.fill_value,
            config=config,
            prototype=default_buffer_prototype(),
        )
        zstd = array.dtype.kind in "iuf" and _is_zstd(tuple(pipeline))
        return cls(array.dtype, array.chunks, ones, key, transform, spec, zstd)

    def fill(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the values of a chunk that isn't there."""
        assert self.spec is not None
        if self.spec.fill_value is None:  # which Zarr v2 may leave open
            return np.full(shape, self.spec.dtype.default_scalar(), self.dtype)
        return np.full(shape, self.spec.fill_value, self.dtype)

    def decode(self, raw: Buffer) -> NDArray[Any]:
        """Return a whole chunk, of which `spec` and `transform` tell."""
        assert self.spec is not None
        assert self.transform is not None
        with _decode_slots(os.getpid()):
            if not self.zstd:
                return np.asarray(self.transform.decode_chunk(raw, self.spec).as_numpy_array())
            nbytes = math.prod(self.spec.shape) * self.dtype.itemsize
            values = pa.Codec("zstd").decompress(raw.as_buffer_like(), nbytes)
            return np.frombuffer(values, self.dtype.newbyteorder("=")).reshape(self.spec.shape)


def _is_zstd(codecs: Sequence[Any]) -> bool:
    """Return whether codecs are plain bytes in Zstandard (see `ChunkDecoder.zstd`)."""
    if len(codecs) != 2 or not isinstance(codecs[0], BytesCodec):
        return False
    order = getattr(codecs[0].endian, "value", codecs[0].endian)
    return isinstance(codecs[1], ZstdCodec) and order in (None, sys.byteorder)


@dataclass(eq=False)
class StoredArray:
    """An array, and what its values become.

    Attributes
    ----------
    name
        What messages call it.
    store_path
        Its store, and its path there.
    open
        Opens it.
    decoder
        What decodes its chunks.
    length
        Its shape.
    values
        What its stored values become.
    begin, shape
        What is shown of it: from where along each axis, and how much.
    """

    name: str
    store_path: StorePath
    open: Callable[[], zarr.Array[Any]]
    decoder: ChunkDecoder
    length: tuple[int, ...]
    values: ValueDecoder
    begin: tuple[int, ...]
    shape: tuple[int, ...]
    _cached: tuple[Window, NDArray[Any]] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, name: str, array: zarr.Array[Any], values: ValueDecoder) -> StoredArray:
        """Return an array that is shown whole."""
        shape, begin = array.shape, (0,) * array.ndim
        decoder = ChunkDecoder.of(array)
        return cls(name, array.store_path, lambda: array, decoder, shape, values, begin, shape)

    @cached_property
    def array(self) -> zarr.Array[Any]:
        """The array as zarr has it."""
        return self.open()

    @cached_property
    def edges(self) -> tuple[Edges, ...]:
        """The grid of its chunks, as far as it is shown; within shards that of the inner ones."""
        if self.decoder.chunks is None:
            return tuple(map(edges_of, self.array.read_chunk_sizes))
        axes = zip(self.begin, self.shape, self.decoder.chunks, strict=True)
        return tuple(regular_edges(at, at + length, chunk) for at, length, chunk in axes)

    def chunks(self, window: Window) -> Window:
        """Return the indices of the chunks of a window, along each axis."""
        spans = []
        for axis, edges in zip(window, self.edges, strict=True):
            start = int(np.searchsorted(edges, axis.start, side="right")) - 1
            stop = int(np.searchsorted(edges, axis.stop, side="left"))
            spans.append(range(max(start, 0), max(stop, start)))
        return tuple(spans)

    def extent(self, chunks: Window) -> Window:
        """Return the positions that chunks have."""
        pairs = zip(chunks, self.edges, strict=True)
        return tuple(range(int(e[span.start]), int(e[span.stop])) for span, e in pairs)

    def key(self, index: Index) -> str:
        """Return the key, below the array, of the object with the chunk at `index`."""
        if self.decoder.chunks is None:
            return self.decoder.key(index)
        offsets = [at // max(n, 1) for at, n in zip(self.begin, self.decoder.chunks, strict=True)]
        axes = zip(index, offsets, self.decoder.shards, strict=True)
        return self.decoder.key(tuple((at + begin) // shard for at, begin, shard in axes))

    def read_arrow(self, window: Window) -> pa.Array:
        """Return the values of a window, in C order."""
        return self.to_arrow(self.read_stored(window))

    def read_next(self, window: Window, *, cache_all: bool = False) -> pa.Array:
        """Return the values of a window, of which others are asked next.

        What has to be decoded for it is kept until another is asked: the chunks that hold it,
        where they are larger; all of the array, with `cache_all` and where it is small.
        """
        if cache_all and math.prod(self.shape) <= MAX_KEPT:
            block: Window = tuple(map(range, self.shape))
        else:
            block = self.extent(self.chunks(window))
            if size(block) <= 2 * size(window):
                return self.read_arrow(window)
        with self._lock:
            if self._cached is None or not _contains(self._cached[0], window):
                self._cached = block, self.read_stored(block)
            block, stored = self._cached
        pairs = zip(window, block, strict=True)
        inside = tuple(slice(axis.start - at.start, axis.stop - at.start) for axis, at in pairs)
        return self.to_arrow(stored[inside])

    def keep(self) -> None:
        """Read all of it, where it is small, for those who ask for parts of it."""
        if math.prod(self.shape) <= MAX_KEPT:
            self.read_next(tuple(range(min(length, 1)) for length in self.shape), cache_all=True)

    def to_arrow(self, stored: NDArray[Any]) -> pa.Array:
        """Return stored values as they are shown, in C order.

        Raises
        ------
        ChunkError
            Where they can't be decoded.
        """
        try:
            return self.values.to_arrow(stored)
        except (ValueError, TypeError, ArithmeticError) as error:
            hint = "" if self.values.packing is None else "; decode => false gives what is stored"
            raise ChunkError(
                f"values of {self.name} can't be told as {self.values.type}: "
                f"{first_line(error)}{hint}"
            ) from error

    def read_cached(self, key: Hashable, window: Window) -> NDArray[Any]:
        """Return the stored values of a window, of chunks that are cached for their neighbours.

        Parameters
        ----------
        key
            What tells the array from any other of this process.
        window
            The positions along each axis.

        Raises
        ------
        ChunkError
            Where a chunk can't be read.
        """
        indices = list(itertools.product(*self.chunks(window)))
        chunks = CHUNKS.fetch(
            [(key, index) for index in indices],
            lambda missing: self._with_chunk_errors(
                self.chunks(window), lambda: self._chunks([indices[at] for at in missing])
            ),
            lambda chunk: chunk.nbytes,
        )
        if len(indices) == 1:
            return chunks[0][self._overlap(indices[0], window)[1]]
        stored = np.empty(tuple(map(len, window)), self.decoder.dtype)
        for index, chunk in zip(indices, chunks, strict=True):
            inside, of_chunk = self._overlap(index, window)
            stored[inside] = chunk[of_chunk]
        return stored

    def _overlap(self, index: Index, window: Window) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Return the overlap of a chunk and a window: in the window, and in the chunk."""
        inside, of_chunk = [], []
        for axis, extent in zip(window, self.extent(_single(index)), strict=True):
            begin, end = max(axis.start, extent.start), min(axis.stop, extent.stop)
            inside.append(slice(begin - axis.start, end - axis.start))
            of_chunk.append(slice(begin - extent.start, end - extent.start))
        return tuple(inside), tuple(of_chunk)

    def read_stored(self, window: Window) -> NDArray[Any]:
        """Return the stored values of a window.

        Raises
        ------
        ChunkError
            Naming the first chunk that can't be read.
        """
        return self._with_chunk_errors(self.chunks(window), lambda: self._window(window))

    def _window(self, window: Window) -> NDArray[Any]:
        spans = self.chunks(window)
        if self._is_decoded_at_once and size(spans) == 1 and self.extent(spans) == window:
            # zarr copies what it decodes into an array, which takes as long as decoding.
            return self._chunks([tuple(span.start for span in spans)])[0]
        pairs = zip(window, self.begin, strict=True)
        selection = tuple(slice(axis.start + at, axis.stop + at) for axis, at in pairs)
        return np.asarray(self.array[selection], dtype=self.decoder.dtype)

    @property
    def _is_decoded_at_once(self) -> bool:
        """Whether a chunk is an object that is decoded without zarr."""
        spec = self.decoder.spec
        return self.decoder.transform is not None and spec is not None and 0 not in spec.shape

    def _chunks(self, indices: Sequence[Index]) -> list[NDArray[Any]]:
        """Return chunks as they are stored, as far as they are shown."""
        extents = [self.extent(_single(index)) for index in indices]
        if not self._is_decoded_at_once:
            return [self._window(extent) for extent in extents]
        decoder, decoded = self.decoder, []
        keys = [join(self.store_path.path, self.key(index)) for index in indices]
        buffers = get_values(self.store_path.store, keys)
        for index, extent, raw in zip(indices, extents, buffers, strict=True):
            shape = tuple(map(len, extent))
            if raw is None:
                decoded.append(decoder.fill(shape))
                continue
            hidden = [  # what lies before the part that is shown
                begin % chunk if at == 0 else 0
                for at, begin, chunk in zip(index, self.begin, decoder.chunks or (), strict=True)
            ]
            inside = tuple(slice(at, at + n) for at, n in zip(hidden, shape, strict=True))
            decoded.append(np.asarray(decoder.decode(raw)[inside], decoder.dtype))
        return decoded

    def _with_chunk_errors[Result](self, chunks: Window, read: Callable[[], Result]) -> Result:
        """Return the result of `read`; an error names the first chunk that fails."""
        try:
            return read()
        except (L2ViewError, MemoryError):
            raise
        except Exception as error:  # codecs raise what they like
            index = next(self._failing(chunks), tuple(span.start for span in chunks))
            raise ChunkError(
                f"the chunk {self.key(index)} of {self.name} can't be read: {first_line(error)}"
            ) from error

    def _failing(self, chunks: Window) -> Iterator[Index]:
        """Yield the indices of the chunks that can't be read."""
        for index in itertools.product(*chunks):
            try:
                self._window(self.extent(_single(index)))
            except Exception:
                yield index


def _single(index: Index) -> Window:
    """Return one chunk as a window of chunks."""
    return tuple(range(at, at + 1) for at in index)


def _contains(block: Window, window: Window) -> bool:
    """Return whether a block contains a window."""
    pairs = zip(block, window, strict=True)
    return all(outer.start <= axis.start and axis.stop <= outer.stop for outer, axis in pairs)
