"""One array made of those of many granules, chunk by chunk.

A chunk of the joined array is a granule's own chunk as it lies in its file, where that has the
same encoding, shape and extent. Any other is made when it is read: the region of the granule's
array that it covers is read, brought into the common form, and encoded.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding

from l2view.arrays.encoding import ArrayEncoding
from l2view.granules.inventory import grid_document
from l2view.granules.profile import DEFAULT_KEYS, with_leading_axis
from l2view.granules.reader import GranuleReader
from l2view.stores.composed import ChunkSource, resolve_chunk
from l2view.stores.hierarchy import JSON, join
from l2view.virtual.chunk import (
    ChunkEncoder,
    ChunkOrFill,
    TranscodedChunk,
    chunk_index,
    chunk_key,
)
from l2view.virtual.pickling import array_of, array_state


@dataclass(frozen=True, eq=False)
class Parts:
    """The arrays of n granules at one path, and what is shown of each.

    Attributes
    ----------
    path
        The arrays' path below their granules.
    rows
        The granules, of shape (n,).
    variants
        Their different documents (see `ArrayInventory`).
    which
        The variant of each, of shape (n,).
    shapes, chunk_shapes
        Of the arrays, of shape (n, rank).
    starts, stops
        What is shown of them along each axis, of shape (n, rank).
    """

    path: str
    rows: NDArray[np.int64]
    variants: tuple[JSON, ...]
    which: NDArray[np.int32]
    shapes: NDArray[np.int64]
    chunk_shapes: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]

    def __getstate__(self) -> JSON:
        whole = self.stops is self.shapes or np.array_equal(self.stops, self.shapes)
        kept = ["which", "shapes", "chunk_shapes"]
        kept += [] if whole and not self.starts.any() else ["starts", "stops"]
        columns = {name: array_state(getattr(self, name)) for name in kept}
        said = {"path": self.path, "rows": self.rows, "variants": self.variants}
        return said | {"columns": columns}

    def __setstate__(self, state: JSON) -> None:
        columns = {name: array_of(column) for name, column in state.pop("columns").items()}
        columns.setdefault("starts", np.broadcast_to(np.int64(0), columns["shapes"].shape))
        columns.setdefault("stops", columns["shapes"])
        self.__dict__.update(state | columns)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """How much is shown along each axis, of shape (n, rank)."""
        return self.stops - self.starts

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return int(self.shapes.shape[1])

    def document(self, member: int) -> JSON:
        """Return the Zarr v3 document of one of the arrays."""
        variant = self.variants[self.which[member]]
        return grid_document(variant, self.shapes[member], self.chunk_shapes[member])


@dataclass(frozen=True, eq=False)
class JoinedArray:
    """An array over the arrays of n granules.

    Attributes
    ----------
    parts
        The granules' arrays.
    form
        How its values are given.
    attributes
        Its attributes.
    dimensions
        The names of its dimensions.
    shape
        Its shape.
    chunk_shape
        Its chunk shape; along `axis`, where it has one, that of its parts.
    axis
        The axis along which the parts lie end to end; None where they lie side by side along
        a new first axis.
    """

    parts: Parts
    form: ArrayEncoding
    attributes: JSON
    dimensions: tuple[str | None, ...]
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    axis: int | None = None

    def __getstate__(self) -> JSON:
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @cached_property
    def is_passthrough(self) -> NDArray[np.bool_]:
        """Whether the chunks of each part may pass as they are, of shape (n,)."""
        form = [self.form.accepts_unchanged(variant) for variant in self.parts.variants]
        liftable = self.axis is not None or with_leading_axis(self.form.codecs) is not None
        alike = self.parts.chunk_shapes == np.array(self.chunk_shape, dtype=np.int64)
        aligned = self.parts.starts % np.maximum(self.parts.chunk_shapes, 1) == 0
        if self.axis is not None:
            alike[:, self.axis] = True
        found = np.array(form, dtype=bool)[self.parts.which] & liftable
        return np.asarray(found & alike.all(axis=1) & aligned.all(axis=1))

    @cached_property
    def filled(self) -> tuple[bool, ...]:
        """Whether a chunk that isn't there has the same values, for each variant."""
        mine = json.dumps(self.form.fill_value)
        return tuple(
            json.dumps(variant["fill_value"]) == mine
            and json.dumps(variant["data_type"]) == json.dumps(self.form.data_type)
            and self.form.accepts_unchanged({**variant, "codecs": list(self.form.codecs)})
            for variant in self.parts.variants
        )

    @cached_property
    def all_passthrough(self) -> NDArray[np.bool_]:
        """Whether all chunks of each part pass as they are, of shape (n,)."""
        chunks = np.maximum(self.parts.chunk_shapes, 1)
        lengths = self.parts.lengths
        extent = np.array(self.shape[1:] if self.axis is None else self.shape, dtype=np.int64)
        # A chunk that is cut off by the granule's end, where the joined array goes on.
        beyond = (lengths % chunks != 0) & (lengths < extent)
        if self.axis is not None:
            pairs = zip(self.edges, chunks[:, self.axis].tolist(), strict=True)
            ends = [bool((cut == chunk).all()) for cut, chunk in pairs]
            beyond[:, self.axis] = ~np.array(ends, dtype=bool)
        return np.asarray(self.is_passthrough & ~beyond.any(axis=1))

    @property
    def unsharded(self) -> JoinedArray:
        """The same array, whose chunks aren't shards where some of them are made.

        A shard has a length that its inner chunks divide, which a chunk that is cut hasn't.
        """
        codecs = inner_codecs(self.form.codecs)
        if codecs is None or (self.all_passthrough.all() and all(self.filled)):
            return self
        return replace(self, form=replace(self.form, codecs=codecs))

    @cached_property
    def encoder(self) -> ChunkEncoder:
        """What encodes chunks that don't pass as they are."""
        return ChunkEncoder(self.form, self.parts.rank)

    @cached_property
    def edges(self) -> list[NDArray[np.int64]]:
        """The lengths of the chunks along `axis`, for each part."""
        axis = self._axis
        lengths = self.parts.lengths[:, axis].tolist()
        chunks = np.maximum(self.parts.chunk_shapes[:, axis], 1).tolist()
        found = []
        for length, chunk in zip(lengths, chunks, strict=True):
            count, rest = divmod(length, chunk)
            cut = np.full(count + (rest > 0), chunk, dtype=np.int64)
            if rest:
                cut[-1] = rest
            found.append(cut)
        # Zarr lets the last chunk of all reach beyond the end, as it does in its file; but not
        # if it is made anyway, or if only without that all are of one length.
        last = max((i for i, length in enumerate(lengths) if length), default=-1)
        if last >= 0 and self.is_passthrough[last] and not _are_equal(found):
            found[last] = found[last].copy()
            found[last][-1] = chunks[last]
        return found

    @property
    def _axis(self) -> int:
        assert self.axis is not None
        return self.axis

    @cached_property
    def firsts(self) -> NDArray[np.int64]:
        """The number of chunks along `axis` before each part, and of all, of shape (n + 1,)."""
        return np.concatenate([[0], np.cumsum([len(cut) for cut in self.edges])]).astype(np.int64)

    @cached_property
    def is_regular(self) -> bool:
        """Whether all chunks along `axis` are of one length."""
        return _are_equal(self.edges)

    @cached_property
    def document(self) -> JSON:
        """The Zarr v3 document."""
        codecs: Any = list(self.form.codecs)
        chunks: list[Any] = list(self.chunk_shape)
        grid: JSON = {"name": "regular", "configuration": {"chunk_shape": chunks}}
        if self.axis is None:
            chunks.insert(0, 1)
            codecs = with_leading_axis(codecs)
        else:
            cut = np.concatenate([*self.edges, np.empty(0, dtype=np.int64)])
            if self.is_regular:
                own = self.parts.chunk_shapes[:, self.axis].max(initial=1)
                chunks[self.axis] = int(cut[0]) if len(cut) else int(own)
            else:
                chunks[self.axis] = _run_lengths(cut)
                said = {"kind": "inline", "chunk_shapes": chunks}
                grid = {"name": "rectilinear", "configuration": said}
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.form.data_type,
            "chunk_grid": grid,
            "chunk_key_encoding": DEFAULT_KEYS,
            "fill_value": self.form.fill_value,
            "codecs": codecs,
            "attributes": self.attributes,
            "dimension_names": list(self.dimensions),
        }

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """The number of chunks along each axis."""
        chunks = self.chunk_shape if self.axis is not None else (1, *self.chunk_shape)
        counts = [-(-n // c) for n, c in zip(self.shape, chunks, strict=True)]
        if self.axis is not None:
            counts[self.axis] = int(self.firsts[-1])
        return tuple(counts)

    def place(self, index: Sequence[int]) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """Return whose the chunk at `index` is, and what of its shown region the chunk covers.

        Returns
        -------
        member
            The part.
        start
            Where the chunk begins along each axis of what is shown, of shape (rank,).
        shape
            The shape of the chunk; it may reach beyond what is shown.
        """
        if self.axis is None:
            shape = np.array(self.chunk_shape, dtype=np.int64)
            return index[0], np.array(index[1:], dtype=np.int64) * shape, shape
        axis = self.axis
        member = int(np.searchsorted(self.firsts, index[axis], side="right")) - 1
        shape = np.array(self.chunk_shape, dtype=np.int64)
        at = np.array(index, dtype=np.int64)
        at[axis] -= self.firsts[member]
        shape[axis] = self.parts.chunk_shapes[member, axis]
        start = at * shape
        shape[axis] = self.edges[member][at[axis]]
        return member, start, shape

    def _own_key(
        self, member: int, start: NDArray[np.int64], shape: NDArray[np.int64]
    ) -> str | None:
        """Return the key below its granule of a chunk that passes as it is, else None."""
        if not self.is_passthrough[member]:
            return None
        stop = start + shape
        parts = self.parts
        if self.axis is not None and shape[self.axis] != parts.chunk_shapes[member, self.axis]:
            return None
        # What lies beyond the granule's own extent may be anything, and is shown where the
        # joined array is longer.
        extent = np.array(self.shape[1:] if self.axis is None else self.shape, dtype=np.int64)
        if self.axis is not None:
            extent[self.axis] = parts.lengths[member, self.axis]
        if np.any(np.minimum(stop, extent) > parts.lengths[member]):
            return None
        own = (parts.starts[member] + start) // np.maximum(parts.chunk_shapes[member], 1)
        variant = parts.variants[parts.which[member]]
        encoding = parse_chunk_key_encoding(variant["chunk_key_encoding"])
        return join(parts.path, encoding.encode_chunk_key(tuple(own.tolist())))

    def find(self, reader: GranuleReader, key: str) -> ChunkSource:
        """Return where the chunk with the key `key` comes from."""
        index = chunk_index(key, self.grid)
        if index is None:
            return None
        parts = self.parts
        member, start, shape = self.place(index)
        if np.any(start >= parts.lengths[member]):
            return None
        own = self._own_key(member, start, shape)
        if own is None:
            return self._transcoded(reader, member, start, shape)
        chunk = reader.chunk(int(parts.rows[member]), own)
        if chunk is None or self.filled[parts.which[member]]:
            return chunk
        return ChunkOrFill(chunk, self._transcoded(reader, member, start, shape))

    def _transcoded(
        self,
        reader: GranuleReader,
        member: int,
        start: NDArray[np.int64],
        shape: NDArray[np.int64],
    ) -> TranscodedChunk:
        """Return the chunk that covers a region of what is shown of a part."""
        parts = self.parts
        begin = parts.starts[member] + start
        end = begin + np.minimum(parts.lengths[member] - start, shape)
        return TranscodedChunk(
            reader,
            int(parts.rows[member]),
            parts.path,
            parts.document(member),
            tuple(map(slice, begin.tolist(), end.tolist())),
            tuple(shape.tolist()),
            self.encoder,
        )

    async def keys(self, reader: GranuleReader) -> AsyncIterator[str]:
        """Yield the keys of the chunks that there are."""
        if self.shape and 0 in self.shape:
            return
        for index in np.ndindex(*self.grid):
            key = chunk_key(index)
            source = await resolve_chunk(self.find(reader, key))
            if isinstance(source, str):
                if await reader.source.exists(source):
                    yield key
            elif source is not None:
                yield key


def inner_codecs(codecs: Sequence[JSON]) -> tuple[JSON, ...] | None:
    """Return the codecs of the chunks within shards, None where there are no shards."""
    for codec in codecs:
        if codec["name"] == "sharding_indexed":
            return tuple(codec["configuration"]["codecs"])
    return None


def _are_equal(edges: Sequence[NDArray[np.int64]]) -> bool:
    """Return whether chunks are all of one length."""
    cut = np.concatenate([*edges, np.empty(0, dtype=np.int64)])
    return len(cut) == 0 or bool((cut == cut[0]).all())


def _run_lengths(edges: NDArray[np.int64]) -> list[Any]:
    """Return chunk lengths as Zarr has them: ``[length, times]`` where one comes many times."""
    changes = np.flatnonzero(np.diff(edges)) + 1
    begins = np.concatenate([[0], changes])
    counts = np.diff(np.concatenate([begins, [len(edges)]]))
    found: list[Any] = []
    for length, count in zip(edges[begins].tolist(), counts.tolist(), strict=True):
        found.append([length, count] if count > 1 else length)
    return found
