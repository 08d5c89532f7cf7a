"""Arrays whose cells are rows of a table, and the columns that the table then has."""

from __future__ import annotations

import itertools
import math
import os
import sys
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
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

from l2view.arrays.codecs import faster_codec
from l2view.arrays.grid import Edges, Window, overlap, regular_edges, size
from l2view.arrays.values import ValueDecoder
from l2view.cache import CHUNKS
from l2view.errors import ChunkError, L2ViewError
from l2view.limits import limits
from l2view.stores.hierarchy import get_values, join
from l2view.text import first_line

type Index = tuple[int, ...]  # the numbers of a chunk along each axis


@lru_cache(maxsize=1)
def _decode_slots(process: int) -> threading.BoundedSemaphore:
    """Return the semaphore that limits a process's decoding threads to its processors."""
    return threading.BoundedSemaphore((os.cpu_count() or 1) + 1)


@dataclass(frozen=True, eq=False)
class ChunkDecoder:
    """What arrays of one data type, chunk shape and codecs have in common."""

    dtype: np.dtype[Any]  # NumPy's dtype of what is stored
    # The shape of a chunk, within shards of an inner one; None where chunks have several.
    chunks: tuple[int, ...] | None
    shards: tuple[int, ...]  # how many chunks along each axis lie in one object
    key: Callable[[Index], str]  # returns the key of an object by its place among the objects
    # Decodes a chunk, which is an object of its own, at once; None where zarr must.
    decode: Callable[[Buffer], NDArray[Any]] | None = None
    fill_value: Any = None  # the value of a chunk that isn't there

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> ChunkDecoder:
        """Return the decoder of an array, and of others like it."""
        metadata = array.metadata
        plain = cls(array.dtype, None, (1,) * array.ndim, metadata.encode_chunk_key)
        if isinstance(metadata, ArrayV3Metadata) and hasattr(metadata.chunk_grid, "chunk_shapes"):
            return plain
        plain = replace(plain, chunks=array.chunks)
        if 0 in array.chunks:
            return plain
        if array.shards is not None:
            pairs = zip(array.shards, array.chunks, strict=True)
            return replace(plain, shards=tuple(shard // chunk for shard, chunk in pairs))
        pipeline: Any = array.async_array.codec_pipeline
        config = array.async_array.config
        if not isinstance(metadata, ArrayV3Metadata):  # which says it, and the array doesn't
            config = replace(config, order=metadata.order)
        try:
            transform = ChunkTransform(codecs=tuple(map(faster_codec, pipeline)))
        except TypeError:  # of a codec that is asynchronous only
            return plain
        fill_value = metadata.fill_value
        prototype = default_buffer_prototype()
        spec = ArraySpec(array.chunks, metadata.dtype, fill_value, config, prototype)
        decode = partial(_decode, transform, spec)
        match tuple(pipeline):
            case (BytesCodec(endian=endian), ZstdCodec()) if array.dtype.kind in "iuf":
                if getattr(endian, "value", endian) in (None, sys.byteorder):
                    decode = partial(_decompress, array.dtype.newbyteorder("="), array.chunks)
        if fill_value is None:  # which Zarr v2 may leave open
            fill_value = metadata.dtype.default_scalar()
        return replace(plain, decode=decode, fill_value=fill_value)


def _decode(transform: ChunkTransform, spec: ArraySpec, raw: Buffer) -> NDArray[Any]:
    with _decode_slots(os.getpid()):
        return np.asarray(transform.decode_chunk(raw, spec).as_numpy_array())


def _decompress(dtype: np.dtype[Any], shape: tuple[int, ...], raw: Buffer) -> NDArray[Any]:
    """Decode numbers in Zstandard: Arrow decompresses into memory that it has already."""
    with _decode_slots(os.getpid()):
        nbytes = math.prod(shape) * dtype.itemsize
        values = pa.Codec("zstd").decompress(raw.as_buffer_like(), nbytes)
        return np.frombuffer(values, dtype).reshape(shape)


@dataclass(eq=False)
class StoredArray:
    """An array, and what its values become; messages call it `name`.

    `begin` and `shape` say what is shown of it: from where along each axis, and how much.
    """

    name: str
    store_path: StorePath
    open: Callable[[], zarr.Array[Any]]
    decoder: ChunkDecoder
    values: ValueDecoder
    begin: tuple[int, ...]
    shape: tuple[int, ...]
    _cached: tuple[Window, NDArray[Any]] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, name: str, array: zarr.Array[Any], values: ValueDecoder) -> StoredArray:
        """Return an array that is shown whole."""
        decoder, begin = ChunkDecoder.of(array), (0,) * array.ndim
        return cls(name, array.store_path, lambda: array, decoder, values, begin, array.shape)

    @cached_property
    def array(self) -> zarr.Array[Any]:
        """The array as zarr has it."""
        return self.open()

    @cached_property
    def edges(self) -> tuple[Edges, ...]:
        """The grid of its chunks, as far as it is shown; within shards that of the inner ones."""
        if self.decoder.chunks is None:
            lengths = self.array.read_chunk_sizes
            return tuple(np.cumsum([0, *axis], dtype=np.int64) for axis in lengths)
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

    def _chunk_extent(self, index: Index) -> Window:
        return self.extent(tuple(range(at, at + 1) for at in index))

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
        if cache_all and math.prod(self.shape) <= limits().cached_values:
            block: Window = tuple(map(range, self.shape))
        else:
            block = self.extent(self.chunks(window))
            if size(block) <= 2 * size(window):
                return self.read_arrow(window)
        with self._lock:
            cached = self._cached
            if cached is None or not all(
                outer.start <= axis.start and axis.stop <= outer.stop
                for outer, axis in zip(cached[0], window, strict=True)
            ):
                cached = self._cached = block, self.read_stored(block)
        return self.to_arrow(cached[1][overlap(window, cached[0])])

    def keep(self) -> None:
        """Read all of it, where it is small, for those who ask for parts of it."""
        if math.prod(self.shape) <= limits().cached_values:
            self.read_next(tuple(range(min(length, 1)) for length in self.shape), cache_all=True)

    def to_arrow(self, stored: NDArray[Any]) -> pa.Array:
        """Return stored values as they are shown, in C order, or raise a `ChunkError`."""
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

        `key` tells the array from any other of this process.
        """
        indices = list(itertools.product(*self.chunks(window)))
        chunks = CHUNKS.fetch(
            [(key, index) for index in indices],
            lambda missing: self._with_chunk_errors(
                self.chunks(window), lambda: self._chunks([indices[at] for at in missing])
            ),
            lambda chunk: chunk.nbytes,
        )
        extents = [self._chunk_extent(index) for index in indices]
        if len(indices) == 1:
            return chunks[0][overlap(window, extents[0])]
        stored = np.empty(tuple(map(len, window)), self.decoder.dtype)
        for extent, chunk in zip(extents, chunks, strict=True):
            stored[overlap(extent, window)] = chunk[overlap(window, extent)]
        return stored

    def read_stored(self, window: Window) -> NDArray[Any]:
        """Return the stored values of a window; a `ChunkError` names one that can't be read."""
        return self._with_chunk_errors(self.chunks(window), lambda: self._window(window))

    def _window(self, window: Window) -> NDArray[Any]:
        spans = self.chunks(window)
        if self.decoder.decode and size(spans) == 1 and self.extent(spans) == window:
            # zarr copies what it decodes into an array, which takes as long as decoding.
            return self._chunks([tuple(span.start for span in spans)])[0]
        pairs = zip(window, self.begin, strict=True)
        selection = tuple(slice(axis.start + at, axis.stop + at) for axis, at in pairs)
        return np.asarray(self.array[selection], dtype=self.decoder.dtype)

    def _chunks(self, indices: Sequence[Index]) -> list[NDArray[Any]]:
        """Return chunks as they are stored, as far as they are shown."""
        extents = [self._chunk_extent(index) for index in indices]
        decoder, decoded = self.decoder, []
        if decoder.decode is None:
            return [self._window(extent) for extent in extents]
        keys = [join(self.store_path.path, self.key(index)) for index in indices]
        buffers = get_values(self.store_path.store, keys)
        for index, extent, raw in zip(indices, extents, buffers, strict=True):
            shape = tuple(map(len, extent))
            if raw is None:
                decoded.append(np.full(shape, decoder.fill_value, decoder.dtype))
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
            key = self.key(self._first_failing(chunks))
            raise ChunkError(
                f"the chunk {key} of {self.name} can't be read: {first_line(error)}"
            ) from error

    def _first_failing(self, chunks: Window) -> Index:
        """Return the index of the first chunk that can't be read."""
        for index in itertools.product(*chunks):
            try:
                self._window(self._chunk_extent(index))
            except Exception:
                return index
        return tuple(span.start for span in chunks)
