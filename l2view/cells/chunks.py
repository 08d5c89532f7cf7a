"""The chunks of a store as a table: where the bytes of each lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from zarr.core.chunk_key_encodings import ChunkKeyEncoding, parse_chunk_key_encoding

from l2view.cells.nodes import StoreTable, nodes, select_rows
from l2view.errors import SkippedArrayWarning, warn
from l2view.granules.chunks import (
    INLINE,
    KINDS,
    NATIVE,
    ChunkTable,
    grid_of,
    iterate_sync,
    stored_chunks,
)
from l2view.granules.table import SourceArray
from l2view.scan.filter import Condition
from l2view.stores.hierarchy import JSON, Node, join
from l2view.stores.zarr_v2 import grid_document

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


class StoredChunks(StoreTable):
    """The chunks that there are of a store's arrays; a shard is one, as it is one object."""

    def __str__(self) -> str:
        return f"chunks of {self.source.label}"

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return SCHEMA

    def batches(
        self, columns: Sequence[str], condition: Condition | None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows (see `l2view.scan.dataset.Partition`).

        Only the chunks of arrays that may be asked for are looked for.
        """
        for node in nodes(self.source):
            if not node.is_array:
                continue
            names = {"array_path": node.path, "store_path": self.source.label}
            labels = {name: pa.array([label]) for name, label in names.items()}
            if condition is not None and not condition.may_hold(labels, 1).all():
                continue
            try:
                grid, encoding = _keys(node)
            except (KeyError, TypeError, ValueError) as error:
                warn(f"the chunks of {node.path} can't be told: {error}", SkippedArrayWarning)
                continue
            array = SourceArray(
                join(self.source.path, node.path), None, np.zeros(1, dtype=np.int64)
            )
            shape = np.array([grid], dtype=np.int64).reshape(1, len(grid))
            for chunks in iterate_sync(stored_chunks(self.source.store, array, shape, encoding)):
                yield select_rows(self._batch(node, chunks, encoding), columns, condition)

    def _batch(self, node: Node, chunks: ChunkTable, encoding: ChunkKeyEncoding) -> pa.RecordBatch:
        count, rank = chunks.index.shape
        keys = [encoding.encode_chunk_key(tuple(index)) for index in chunks.index.tolist()]
        offsets = pa.array(np.arange(count + 1, dtype=np.int32) * rank)
        inline, native = chunks.kinds == INLINE, chunks.kinds == NATIVE
        paths = [
            None if hidden else path for path, hidden in zip(chunks.paths, inline, strict=True)
        ]
        return pa.record_batch(
            [
                pa.repeat(self.source.label, count),
                pa.repeat(node.path, count),
                pa.array(keys, pa.string()),
                pa.ListArray.from_arrays(offsets, pa.array(chunks.index.ravel())),
                pa.array(paths, pa.string()),
                pa.array(chunks.lengths.astype(np.int64), mask=~native),
                pa.array(chunks.offsets, mask=inline),
                pa.array(chunks.lengths),
                pa.array(KINDS).take(pa.array(chunks.kinds)),
            ],
            schema=SCHEMA,
        )


def _keys(node: Node) -> tuple[tuple[int, ...], ChunkKeyEncoding]:
    """Return the number of chunks along each axis of an array, and how their keys are made."""
    document = node.document or grid_document(node.zarray)
    encoding = document["chunk_key_encoding"]
    key_encoding: JSON = {"name": encoding} if isinstance(encoding, str) else encoding
    return grid_of(document), parse_chunk_key_encoding(key_encoding)
