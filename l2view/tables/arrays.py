"""Arrays whose cells are rows of a table, and the columns that the table then has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.chunk_utils import ChunkTransform
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.core.sync import sync

from l2view.errors import ChunkError, L2ViewError, said
from l2view.hierarchy import join, reads_sync
from l2view.tables.grid import Edges, Window, edges_of, regular_edges
from l2view.tables.values import Values

VALUE = "value"
"""The column of the cells' values."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table of cells.

    Attributes
    ----------
    labels
        Those of a whole array, such as the fields of its granule.
    dimensions
        The names of the dimensions, None where one has none.
    coordinates
        Along which axes each coordinate lies.
    types
        The types of the coordinates.
    value
        The type of the values.
    hidden
        Names that stand for no positions: those of other arrays' coordinates.
    absent
        Columns that other arrays of the table have, and NULL for these.
    order
        The names of all columns; first labels and last the value where it is empty.
    """

    labels: pa.Schema
    dimensions: tuple[str | None, ...]
    coordinates: Mapping[str, tuple[int, ...]]
    types: Mapping[str, pa.DataType]
    value: pa.DataType
    hidden: frozenset[str] = frozenset()
    absent: Mapping[str, pa.DataType] = field(default_factory=dict)
    order: tuple[str, ...] = ()

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The axis that each column of positions counts along.

        They are ``dim_0``, ``dim_1`` and so on, and the names of dimensions without coordinates.
        """
        found = {dimension_column(axis): axis for axis in range(len(self.dimensions))}
        taken = {*found, *self.coordinates, *self.labels.names, *self.hidden, VALUE}
        named = {
            name: axis
            for axis, name in enumerate(self.dimensions)
            if name is not None and name not in taken and self.dimensions.count(name) == 1
        }
        return found | named

    @cached_property
    def schema(self) -> pa.Schema:
        """All columns: labels, positions, coordinates, value."""
        fields = [
            *self.labels,
            *(pa.field(name, pa.int64()) for name in self.positions),
            *(pa.field(name, self.types[name]) for name in self.coordinates),
            *(pa.field(name, kind) for name, kind in self.absent.items()),
            pa.field(VALUE, self.value),
        ]
        known = {one.name: one for one in fields}
        return pa.schema([known[name] for name in self.order or known])

    def along(self, axis: int) -> frozenset[str]:
        """Return the columns that are told by the position along one axis."""
        own = {name for name, axes in self.coordinates.items() if axes == (axis,)}
        return frozenset(own | {name for name, other in self.positions.items() if other == axis})

    @cached_property
    def read(self) -> frozenset[str]:
        """The columns that are read cell by cell: the values, and coordinates over several axes."""
        return frozenset(
            {VALUE, *(name for name, axes in self.coordinates.items() if len(axes) != 1)}
        )


def together(columns: Sequence[Columns]) -> list[Columns]:
    """Return the columns of several sets of arrays as those of one table.

    Parameters
    ----------
    columns
        Of each set; with the same labels, and one type for each coordinate.
    """
    fields: dict[str, pa.DataType] = {}
    for kind in ("labels", "positions", "coordinates", VALUE):
        for one in columns:
            names = {
                "labels": one.labels.names,
                "positions": one.positions,
                "coordinates": one.coordinates,
                VALUE: [VALUE],
            }[kind]
            fields |= {name: one.schema.field(name).type for name in names}
    order = tuple(fields)
    return [
        replace(
            one,
            absent={name: fields[name] for name in order if name not in one.schema.names},
            order=order,
        )
        for one in columns
    ]


def dimension_column(axis: int) -> str:
    """Return the name of the column of positions along an axis."""
    return f"dim_{axis}"


@dataclass(frozen=True, eq=False)
class StoredArray:
    """An array, and what its values become.

    Attributes
    ----------
    name
        What messages call it.
    array
        The array.
    values
        What its stored values become.
    begin, shape
        What is shown of it: from where along each axis, and how much.
    """

    name: str
    array: zarr.Array[Any]
    values: Values
    begin: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def whole(cls, name: str, array: zarr.Array[Any], values: Values) -> StoredArray:
        """Return an array that is shown whole."""
        return cls(name, array, values, (0,) * array.ndim, array.shape)

    @cached_property
    def edges(self) -> tuple[Edges, ...]:
        """The grid of its chunks, as far as it is shown; within shards that of the inner ones."""
        if not _is_regular(self.array):
            return tuple(map(edges_of, self.array.read_chunk_sizes))
        shown = zip(self.begin, self.shape, self.array.chunks, strict=True)
        return tuple(regular_edges(at, at + length, chunk) for at, length, chunk in shown)

    @cached_property
    def shards(self) -> tuple[int, ...]:
        """How many chunks along each axis lie in one object."""
        if self.array.shards is None:
            return (1,) * self.array.ndim
        pairs = zip(self.array.shards, self.array.chunks, strict=True)
        return tuple(shard // chunk for shard, chunk in pairs)

    @cached_property
    def all(self) -> pa.Array:
        """All values, in C order."""
        return self.read(tuple(map(range, self.shape)))

    def read(self, window: Window) -> pa.Array:
        """Return the values of a window, in C order.

        Raises
        ------
        ChunkError
            Naming the first chunk that can't be read.
        """
        try:
            return self._read(window)
        except (L2ViewError, MemoryError):
            raise
        except Exception as error:  # codecs raise what they like
            raise self._explained(window, error) from error

    def _read(self, window: Window) -> pa.Array:
        stored = self._chunk(window)
        if stored is not None:
            return self.values.to_arrow(stored)
        pairs = zip(window, self.begin, strict=True)
        found = self.array[tuple(slice(a.start + at, a.stop + at) for a, at in pairs)]
        return self.values.to_arrow(np.asarray(found, dtype=self.array.dtype))

    def _chunk(self, window: Window) -> NDArray[Any] | None:
        """Return a window that is a whole chunk, None where it is not, or there is no such chunk.

        zarr copies what it decodes into an array, which here would take as long as decoding.
        """
        if self._transform is None or 0 in self.array.chunks:
            return None
        index, inside = [], []
        for axis, begin, chunk, length in zip(
            window, self.begin, self.array.chunks, self.array.shape, strict=True
        ):
            at, rest = divmod(axis.start + begin, chunk)
            if rest or axis.stop + begin != min((at + 1) * chunk, length):
                return None
            index.append(at)
            inside.append(slice(0, len(axis)))
        path = self.array.store_path
        key = join(path.path, self.array.metadata.encode_chunk_key(tuple(index)))
        prototype = default_buffer_prototype()
        if reads_sync(path.store):
            raw = path.store.get_sync(key, prototype=prototype)
        else:
            raw = sync(path.store.get(key, prototype))
        if raw is None:
            return None
        spec = ArraySpec(
            shape=self.array.chunks,
            dtype=self.array.metadata.dtype,
            fill_value=self.array.metadata.fill_value,
            config=self.array.async_array.config,
            prototype=prototype,
        )
        found = self._transform.decode_chunk(raw, spec).as_numpy_array()
        return np.asarray(found[tuple(inside)])

    @cached_property
    def _transform(self) -> ChunkTransform | None:
        """What decodes a chunk at once, None where zarr must, or chunks are shards."""
        if not _is_regular(self.array) or self.array.shards is not None:
            return None
        pipeline: Any = self.array.async_array.codec_pipeline
        try:
            return ChunkTransform(codecs=tuple(pipeline))
        except TypeError:  # of a codec that is asynchronous only
            return None

    def _explained(self, window: Window, error: Exception) -> ChunkError:
        """Return what to say where a window can't be read: which of its chunks it was."""
        spans = []
        for axis, edges in zip(window, self.edges, strict=True):
            first = int(np.searchsorted(edges, axis.start, side="right")) - 1
            last = int(np.searchsorted(edges, axis.stop, side="left"))
            spans.append(range(first, last))
        index = next(self._failing(spans), tuple(span.start for span in spans))
        return ChunkError(
            f"the chunk {self.key(index)} of {self.name} can't be read: {said(error)}"
        )

    def _failing(self, spans: Sequence[range]) -> Any:
        """Yield the indices of the chunks that can't be read."""
        for offset in np.ndindex(*map(len, spans)):
            index = tuple(span[at] for span, at in zip(spans, offset, strict=True))
            pairs = zip(self.edges, index, strict=True)
            try:
                self._read(tuple(range(int(e[at]), int(e[at + 1])) for e, at in pairs))
            except Exception:
                yield index

    def key(self, index: Sequence[int]) -> str:
        """Return the key, below the array, of the object with the chunk at `index`."""
        own = index
        if _is_regular(self.array):
            first = [at // max(n, 1) for at, n in zip(self.begin, self.array.chunks, strict=True)]
            shown = zip(index, first, self.shards, strict=True)
            own = [(at + begin) // shard for at, begin, shard in shown]
        return self.array.metadata.encode_chunk_key(tuple(own))


def _is_regular(array: zarr.Array[Any]) -> bool:
    """Return whether all chunks of an array have one shape, as those of Zarr v2 do."""
    metadata = array.metadata
    return not isinstance(metadata, ArrayV3Metadata) or not hasattr(
        metadata.chunk_grid, "chunk_shapes"
    )


@dataclass(frozen=True, eq=False)
class Opened:
    """An array with its coordinates.

    Attributes
    ----------
    values
        The array.
    coordinates
        Its coordinates.
    """

    values: StoredArray
    coordinates: Mapping[str, StoredArray]


class Arrays(Protocol):
    """n arrays of one rank, with the same coordinates."""

    @property
    def columns(self) -> Columns:
        """The columns of the table of their cells."""
        ...

    @property
    def shapes(self) -> NDArray[np.int64]:
        """Their shapes, of shape (n, rank)."""
        ...

    def labels(self, names: Sequence[str]) -> pa.Table:
        """Return some labels, one row an array."""
        ...

    def opened(self, member: int) -> Opened:
        """Return one of the arrays."""
        ...
