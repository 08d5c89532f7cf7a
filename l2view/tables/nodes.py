"""The groups and arrays of a store as tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from zarr.abc.codec import BytesBytesCodec
from zarr.errors import UnknownCodecError
from zarr.registry import get_codec_class

from l2view.decoding import native_dtype
from l2view.errors import L2ViewError, SkippedArrayWarning, warn
from l2view.hierarchy import JSON, Hierarchy, Node
from l2view.layout.chunks import grid_of, synchronous
from l2view.meta.schema import type_name
from l2view.stores import Source, unreadable
from l2view.tables.condition import Condition

BATCH = 1024
"""How many nodes are told at once."""

INTEGERS = pa.list_(pa.int64())

GROUPS = pa.schema(
    [
        ("store_path", pa.string()),
        ("group_path", pa.string()),
        ("zarr_format", pa.int64()),
        ("metadata_path", pa.string()),
        ("attributes", pa.string()),
    ]
)
"""The columns of `groups`; ``/`` is the root."""

ARRAYS = pa.schema(
    [
        ("store_path", pa.string()),
        ("array_path", pa.string()),
        ("zarr_format", pa.int64()),
        ("rank", pa.int64()),
        ("shape", INTEGERS),
        ("chunk_shape", INTEGERS),
        ("dtype", pa.string()),
        ("order", pa.string()),
        ("compressor", pa.string()),
        ("dimension_separator", pa.string()),
        ("metadata_path", pa.string()),
        ("codecs", pa.string()),
        ("fill_value", pa.string()),
        ("dimension_names", pa.list_(pa.string())),
        ("shard_shape", INTEGERS),
        ("chunk_count", pa.int64()),
        ("chunk_key_encoding", pa.string()),
        ("attributes", pa.string()),
    ]
)
"""The columns of `arrays`."""


@dataclass(frozen=True, eq=False)
class Nodes:
    """The groups or the arrays of a store as a table, of which it is also the only part.

    Attributes
    ----------
    source
        The store.
    kind
        ``"group"`` or ``"array"``.
    """

    source: Source
    kind: str

    def __str__(self) -> str:
        return f"{self.kind}s of {self.source.label}"

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return GROUPS if self.kind == "group" else ARRAYS

    def parts(
        self, condition: Condition | None, *, early: bool = False, several: bool = False
    ) -> list[Nodes]:
        """Return the only part (see `l2view.tables.dataset.Table`)."""
        return [self]

    def count(self) -> None:
        """Return None: it takes reading."""

    def batches(
        self, columns: Sequence[str], condition: Condition | None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows (see `l2view.tables.dataset.Part`)."""
        rows: list[JSON] = []
        for node in nodes(self.source):
            if node.document is None:
                if self.kind == "array":
                    warn(
                        f"{node.path} is left out: an array of Zarr v2 that has no v3 form",
                        SkippedArrayWarning,
                    )
                continue
            if node.document["node_type"] == self.kind:
                rows.append(_group(node) if self.kind == "group" else _array(node))
            if len(rows) == BATCH:
                yield self._batch(rows, columns, condition)
                rows = []
        yield self._batch(rows, columns, condition)

    def _batch(
        self, rows: list[JSON], columns: Sequence[str], condition: Condition | None
    ) -> pa.RecordBatch:
        label = self.source.label
        place = label if label.endswith("/") else f"{label}/"
        for row in rows:
            row |= {"store_path": label, "metadata_path": place + row["metadata_path"]}
        batch = pa.RecordBatch.from_pylist(rows, self.schema)
        return selected(batch, columns, condition)


def selected(
    batch: pa.RecordBatch, columns: Sequence[str], condition: Condition | None
) -> pa.RecordBatch:
    """Return some columns of the rows that fulfil a condition."""
    if condition is not None:
        mask = condition.may_hold({n: batch.column(n) for n in condition.columns}, len(batch))
        batch = batch.filter(pa.array(mask))
    return batch.select(list(columns))


def nodes(source: Source) -> Iterator[Node]:
    """Yield the groups and arrays of a store.

    Raises
    ------
    StoreError
        Where they can't be read.
    """
    try:
        yield from synchronous(Hierarchy(source.store, source.path).walk())
    except L2ViewError:
        raise
    except Exception as error:  # every store has errors of its own
        raise unreadable(source.label, error) from error


def _group(node: Node) -> JSON:
    assert node.document is not None
    return {
        "group_path": node.path or "/",
        "zarr_format": node.zarr_format,
        "metadata_path": node.key,
        "attributes": json.dumps(node.document.get("attributes") or {}),
    }


def _array(node: Node) -> JSON:
    document = node.document
    assert document is not None
    shape: list[int] = document["shape"]
    chunks, shards, count = _grid(document)
    encoding = document["chunk_key_encoding"]
    separator = "/" if encoding["name"] == "default" else "."
    codecs: list[JSON] = document["codecs"]
    return {
        "array_path": node.path,
        "zarr_format": node.zarr_format,
        "rank": len(shape),
        "shape": shape,
        "chunk_shape": chunks,
        "dtype": _dtype(document),
        "order": _order(codecs),
        "compressor": _compressor(codecs),
        "dimension_separator": encoding.get("configuration", {}).get("separator", separator),
        "metadata_path": node.key,
        "codecs": json.dumps(codecs),
        "fill_value": json.dumps(document["fill_value"]),
        "dimension_names": document.get("dimension_names"),
        "shard_shape": shards,
        "chunk_count": count,
        "chunk_key_encoding": encoding["name"],
        "attributes": json.dumps(document.get("attributes") or {}),
    }


def _inner(codecs: Sequence[JSON]) -> Sequence[JSON]:
    """Return the codecs of chunks, within shards where there are any."""
    for codec in codecs:
        if codec["name"] == "sharding_indexed":
            found: Sequence[JSON] = codec["configuration"]["codecs"]
            return found
    return codecs


def _grid(document: JSON) -> tuple[list[int] | None, list[int] | None, int]:
    """Return the shapes of chunks and shards, None where there is none, and how many chunks."""
    count = math.prod(grid_of(document))
    if document["chunk_grid"]["name"] != "regular":
        return None, None, count
    outer: list[int] = document["chunk_grid"]["configuration"]["chunk_shape"]
    for codec in document["codecs"]:
        if codec["name"] == "sharding_indexed":
            inner: list[int] = codec["configuration"]["chunk_shape"]
            pairs = zip(document["shape"], inner, strict=True)
            return inner, outer, math.prod(-(-length // chunk) for length, chunk in pairs)
    return outer, None, count


def _dtype(document: JSON) -> str:
    """Return a data type as NumPy writes it, where it is one of NumPy's."""
    said = document["data_type"]
    try:
        dtype = native_dtype(said)
    except (ValueError, KeyError):  # a data type that zarr doesn't know
        return type_name(said)
    if dtype.kind in "OT":
        return type_name(said)
    endian = next((one for one in _inner(document["codecs"]) if one["name"] == "bytes"), {})
    big = endian.get("configuration", {}).get("endian") == "big"
    return str(dtype.newbyteorder(">").str if big else dtype.str)


def _order(codecs: Sequence[JSON]) -> str:
    """Return ``F`` where the axes of chunks are stored the other way round."""
    for codec in _inner(codecs):
        if codec["name"] == "transpose":
            axes = codec["configuration"]["order"]
            if len(axes) > 1 and axes == sorted(axes, reverse=True):
                return "F"
    return "C"


def _compressor(codecs: Sequence[JSON]) -> str | None:
    """Return the codec that compresses, as numcodecs describes it, None where there is none."""
    for codec in _inner(codecs):
        try:
            compresses = issubclass(get_codec_class(codec["name"]), BytesBytesCodec)
        except UnknownCodecError:
            continue
        if compresses and codec["name"] != "crc32c":
            name = codec["name"].removeprefix("numcodecs.")
            return json.dumps({"id": name, **codec.get("configuration", {})})
    return None
