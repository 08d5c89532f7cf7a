"""The groups, arrays and chunks of a store as tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import batched

import numpy as np
import pyarrow as pa
from zarr.abc.codec import BytesBytesCodec
from zarr.core.chunk_key_encodings import ChunkKeyEncoding, parse_chunk_key_encoding
from zarr.errors import UnknownCodecError
from zarr.registry import get_codec_class

from l2view.arrays.dtypes import native_dtype
from l2view.errors import L2ViewError, SkippedArrayWarning, StoreError, warn
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
from l2view.meta.schema import type_name
from l2view.scan.dataset import Partition
from l2view.scan.filter import Condition
from l2view.stores.hierarchy import JSON, Hierarchy, Node, join
from l2view.stores.open import Source, unreadable_store
from l2view.stores.zarr_v2 import DIMENSIONS, grid_document

MAX_BATCH = 1024  # how many nodes are rows of one batch

INTEGERS = pa.list_(pa.int64())

GROUPS = pa.schema(
    {
        "store_path": pa.string(),
        "group_path": pa.string(),
        "zarr_format": pa.int64(),
        "metadata_path": pa.string(),
        "attributes": pa.string(),
    }
)
"""The columns of groups; ``/`` is the root."""

ARRAYS = pa.schema(
    {
        **dict.fromkeys(("store_path", "array_path"), pa.string()),
        **dict.fromkeys(("zarr_format", "rank"), pa.int64()),
        **dict.fromkeys(("shape", "chunk_shape"), INTEGERS),
        **dict.fromkeys(("dtype", "order", "compressor", "dimension_separator"), pa.string()),
        **dict.fromkeys(("metadata_path", "codecs", "fill_value"), pa.string()),
        "dimension_names": pa.list_(pa.string()),
        "shard_shape": INTEGERS,
        "chunk_count": pa.int64(),
        **dict.fromkeys(("chunk_key_encoding", "attributes"), pa.string()),
    }
)
"""The columns of arrays."""

CHUNKS = pa.schema(
    {
        "store_path": pa.string(),
        "array_path": pa.string(),
        "chunk_key": pa.string(),
        "chunk_coords": INTEGERS,
        "file_path": pa.string(),
        "file_size_bytes": pa.int64(),
        "offset": pa.uint64(),
        "length": pa.uint64(),
        "kind": pa.string(),
    }
)
"""The columns of chunks."""


SCHEMAS = {"group": GROUPS, "array": ARRAYS, "chunk": CHUNKS}


@dataclass(frozen=True, eq=False)
class StoreTable:
    """The nodes or chunks of a store as a table, which is read as one partition.

    They are groups, arrays or chunks, by `kind` of `SCHEMAS`. A shard is one chunk, as it is one
    object.
    """

    source: Source
    kind: str

    def __str__(self) -> str:
        return f"{self.kind}s of {self.source.label}"

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return SCHEMAS[self.kind]

    def partitions(
        self, condition: Condition | None, *, early: bool = False, several: bool = False
    ) -> list[Partition]:
        """Return the only partition (see `l2view.scan.dataset.Table`)."""
        return [self.batches]

    def count(self) -> None:
        """Return None: it takes reading."""

    def batches(
        self, columns: Sequence[str], condition: Condition | None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows (see `l2view.scan.dataset.Partition`)."""
        for batch in self._chunks(condition) if self.kind == "chunk" else self._nodes():
            if condition is not None:
                values = {name: batch.column(name) for name in condition.columns}
                batch = batch.filter(pa.array(condition.may_hold(values, len(batch))))
            if columns:
                yield batch.select(list(columns))
            else:  # a batch of no columns still has a length
                yield pa.record_batch({"_": pa.nulls(len(batch))}).select([])

    def _nodes(self) -> Iterator[pa.RecordBatch]:
        label = self.source.label
        root = label if label.endswith("/") else f"{label}/"
        selected = (node for node in nodes(self.source) if node.is_array == (self.kind == "array"))
        for batch_nodes in batched(selected, MAX_BATCH):
            rows = [
                (_array(node) if node.is_array else _group(node))
                | {
                    "store_path": label,
                    "metadata_path": root + node.key,
                    "zarr_format": node.zarr_format,
                }
                for node in batch_nodes
            ]
            yield pa.RecordBatch.from_pylist(rows, self.schema)

    def _chunks(self, condition: Condition | None) -> Iterator[pa.RecordBatch]:
        """Yield the chunks of the arrays that a condition may hold for."""
        source = self.source
        for node in nodes(source):
            if not node.is_array:
                continue
            names = {"array_path": node.path, "store_path": source.label}
            labels = {name: pa.array([label]) for name, label in names.items()}
            if condition is not None and not condition.may_hold(labels, 1).all():
                continue
            try:
                document = node.document or grid_document(node.zarray)
                grid = np.array([grid_of(document)], dtype=np.int64)
                encoding = parse_chunk_key_encoding(_with_name(document["chunk_key_encoding"]))
            except (KeyError, TypeError, ValueError) as error:
                warn(f"the chunks of {node.path} can't be told: {error}", SkippedArrayWarning)
                continue
            array = SourceArray(join(source.path, node.path), None, np.zeros(1, dtype=np.int64))
            for chunks in iterate_sync(stored_chunks(source.store, array, grid, encoding)):
                yield self._chunk_rows(node, chunks, encoding)

    def _chunk_rows(
        self, node: Node, chunks: ChunkTable, encoding: ChunkKeyEncoding
    ) -> pa.RecordBatch:
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
            schema=CHUNKS,
        )


def nodes(source: Source) -> Iterator[Node]:
    """Yield the groups and arrays of a store; a `StoreError` where they can't be read."""
    empty = True
    try:
        for node in iterate_sync(Hierarchy(source.store, source.path).walk()):
            empty = False
            yield node
    except L2ViewError:
        raise
    except Exception as error:  # every store has errors of its own
        raise unreadable_store(source.label, error) from error
    if empty:
        raise StoreError(f"there is no Zarr hierarchy at {source.label}")


def _group(node: Node) -> JSON:
    attributes = node.to_v3().get("attributes") or {}
    return {"group_path": node.path or "/", "attributes": json.dumps(attributes)}


def _array(node: Node) -> JSON:
    """Return the row of an array; what it says in an unknown way is NULL, and warned of."""
    try:
        row = _v2_row(node) if node.zarr_format == 2 else _v3_row(node.document or {})
    except (KeyError, TypeError, ValueError) as error:
        warn(f"the metadata of {node.path} can't be told: {error}", SkippedArrayWarning)
        row = {}
    return row | {"array_path": node.path}


def _v2_row(node: Node) -> JSON:
    """Return the row of a Zarr v2 array, as its metadata are stored."""
    stored = node.zarray
    shape, chunks, dtype = stored["shape"], stored["chunks"], stored["dtype"]
    compressor = stored.get("compressor")
    codecs = [*(stored.get("filters") or ()), *filter(None, [compressor])]
    names = node.zattrs.get(DIMENSIONS)
    return {
        "rank": len(shape),
        "shape": shape,
        "chunk_shape": chunks,
        "dtype": dtype if isinstance(dtype, str) else json.dumps(dtype),
        "order": stored.get("order", "C"),
        "compressor": None if compressor is None else json.dumps(compressor),
        "dimension_separator": stored.get("dimension_separator", "."),
        "codecs": json.dumps(codecs),
        "fill_value": json.dumps(stored.get("fill_value")),
        "dimension_names": names if isinstance(names, list) else None,
        "chunk_count": math.prod(grid_of(grid_document(stored))),
        "chunk_key_encoding": "v2",
        "attributes": json.dumps(node.zattrs),
    }


def _v3_row(document: JSON) -> JSON:
    """Return the row of a Zarr v3 array."""
    codecs = [_with_name(codec) for codec in document["codecs"]]
    sharding = next((c["configuration"] for c in codecs if c["name"] == "sharding_indexed"), None)
    grid = document["chunk_grid"]
    chunks = grid["configuration"]["chunk_shape"] if grid["name"] == "regular" else None
    shards = None
    if sharding is not None:
        codecs = [_with_name(codec) for codec in sharding["codecs"]]
        if chunks is not None:
            chunks, shards = sharding["chunk_shape"], chunks
            grid = {"name": "regular", "configuration": {"chunk_shape": chunks}}
    is_known = grid["name"] in ("regular", "rectilinear")
    encoding = _with_name(document["chunk_key_encoding"])
    separator = "/" if encoding["name"] == "default" else "."
    return {
        "rank": len(document["shape"]),
        "shape": document["shape"],
        "chunk_shape": chunks,
        "dtype": _dtype(document["data_type"], codecs),
        "order": _order(codecs),
        "compressor": _compressor(codecs),
        "dimension_separator": encoding.get("configuration", {}).get("separator", separator),
        "codecs": json.dumps(document["codecs"]),
        "fill_value": json.dumps(document["fill_value"]),
        "dimension_names": document.get("dimension_names"),
        "shard_shape": shards,
        "chunk_count": math.prod(grid_of(document | {"chunk_grid": grid})) if is_known else None,
        "chunk_key_encoding": encoding["name"],
        "attributes": json.dumps(document.get("attributes") or {}),
    }


def _with_name(extension: JSON | str) -> JSON:
    """Return an extension of Zarr v3 that may be told by its name alone."""
    return {"name": extension} if isinstance(extension, str) else extension


def _dtype(data_type: str | JSON, codecs: Sequence[JSON]) -> str:
    """Return a data type as NumPy writes it, where it is one of NumPy's."""
    try:
        dtype = native_dtype(data_type)
    except (ValueError, KeyError, TypeError):  # a data type that zarr doesn't know
        return type_name(data_type)
    if dtype.kind in "OT":
        return type_name(data_type)
    if dtype.names is not None:
        return json.dumps(dtype.descr)
    endian = next((codec for codec in codecs if codec["name"] == "bytes"), {})
    big = endian.get("configuration", {}).get("endian") == "big"
    return str(dtype.newbyteorder(">").str if big else dtype.str)


def _order(codecs: Sequence[JSON]) -> str:
    """Return ``F`` where the axes of chunks are stored the other way round."""
    for codec in codecs:
        if codec["name"] == "transpose":
            axes = codec["configuration"]["order"]
            if len(axes) > 1 and axes == sorted(axes, reverse=True):
                return "F"
    return "C"


def _compressor(codecs: Sequence[JSON]) -> str | None:
    """Return the compressor as numcodecs describes it, None where there is none."""
    for codec in codecs:
        try:
            compresses = issubclass(get_codec_class(codec["name"]), BytesBytesCodec)
        except UnknownCodecError:
            continue
        if compresses and codec["name"] != "crc32c":
            name = codec["name"].removeprefix("numcodecs.")
            return json.dumps({"id": name, **codec.get("configuration", {})})
    return None
