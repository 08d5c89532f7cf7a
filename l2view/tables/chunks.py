"""The chunks of a store as a table: where the bytes of each lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding

from l2view.hierarchy import JSON, Node, join
from l2view.layout.chunks import (
    INLINE,
    KINDS,
    NATIVE,
    Chunks,
    grid_of,
    stored_chunks,
    synchronous,
)
from l2view.layout.inventory import Source as Place
from l2view.stores import Source
from l2view.tables.condition import Condition
from l2view.tables.nodes import nodes, selected

SCHEMA = pa.schema(
    [
        ("store_path", pa.string()),
        ("array_path", pa.string()),
        ("chunk_key", pa.string()),
        ("chunk_coords", pa.list_(pa.int64())),
        ("file_path", pa.string()),
        ("file_size_bytes", pa.int64()),
        ("offset", pa.uint64()),
        ("length", pa.uint64()),
        ("kind", pa.string()),
    ]
)
"""The columns of `StoredChunks`."""


@dataclass(frozen=True, eq=False)
class StoredChunks:
    """The chunks that there are of a store's arrays as a table, of which it is the only part.

    A shard is one chunk here, as it is one object in the store.

    Attributes
    ----------
    source
        The store.
    """

    source: Source

    def __str__(self) -> str:
        return f"chunks of {self.source.label}"

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return SCHEMA

    def parts(
        self, condition: Condition | None, *, early: bool = False, several: bool = False
    ) -> list[StoredChunks]:
        """Return the only part (see `l2view.tables.dataset.Table`)."""
        return [self]

    def count(self) -> None:
        """Return None: it takes reading."""

    def batches(
        self, columns: Sequence[str], condition: Condition | None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows (see `l2view.tables.dataset.Part`).

        Only the chunks of arrays that may be asked for are looked for.
        """
        for node in nodes(self.source):
            document = node.document
            if document is None or document["node_type"] != "array":
                continue
            names = {"array_path": node.path, "store_path": self.source.label}
            known = {name: pa.array([said]) for name, said in names.items()}
            if condition is not None and not condition.may_hold(known, 1).all():
                continue
            for chunks in self._of(node, document):
                yield selected(self._batch(node, document, chunks), columns, condition)

    def _of(self, node: Node, document: JSON) -> Iterator[Chunks]:
        """Yield the chunks of an array."""
        grid = np.array([grid_of(document)], dtype=np.int64).reshape(1, len(document["shape"]))
        place = Place(join(self.source.path, node.path), None, np.zeros(1, dtype=np.int64))
        encoding = parse_chunk_key_encoding(document["chunk_key_encoding"])
        yield from synchronous(stored_chunks(self.source.store, place, grid, encoding))

    def _batch(self, node: Node, document: JSON, chunks: Chunks) -> pa.RecordBatch:
        count, rank = chunks.index.shape
        encoding = parse_chunk_key_encoding(document["chunk_key_encoding"])
        keys = [encoding.encode_chunk_key(tuple(index)) for index in chunks.index.tolist()]
        ends = pa.array(np.arange(count + 1, dtype=np.int32) * rank)
        lengths = pa.array(chunks.lengths)
        inline, native = chunks.kinds == INLINE, chunks.kinds == NATIVE
        paths = [None if hidden else one for one, hidden in zip(chunks.paths, inline, strict=True)]
        return pa.record_batch(
            [
                pa.repeat(self.source.label, count),
                pa.repeat(node.path, count),
                pa.array(keys, pa.string()),
                pa.ListArray.from_arrays(ends, pa.array(chunks.index.ravel())),
                pa.array(paths, pa.string()),
                pa.array(chunks.lengths.astype(np.int64), mask=~native),
                pa.array(chunks.offsets, mask=inline),
                lengths,
                pa.array(KINDS).take(pa.array(chunks.kinds)),
            ],
            schema=SCHEMA,
        )
