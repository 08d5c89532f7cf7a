"""Columns as few bytes, for a view that travels to other processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from l2view.stores.hierarchy import JSON

ZSTD = Zstd(level=9)


def field_state(value: Any) -> JSON:
    """Return the fields of a dataclass for its pickle, without what was computed from them."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


class Compressed:
    """A table, column, or array of integers of shape (n,) or (n, k), in a pickle.

    What is unpickled is the value itself; an array may not be written to.
    """

    def __init__(self, value: pa.Table | pa.Array | NDArray[Any]) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        value = self.value
        if isinstance(value, pa.Table):
            sink = pa.BufferOutputStream()
            options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
            with pyarrow.ipc.new_stream(sink, value.schema, options=options) as stream:
                stream.write_table(value)
            return _read_table, (sink.getvalue().to_pybytes(),)
        if isinstance(value, pa.Array):
            return _read_column, (Compressed(pa.table({"": value})),)
        if (value == value[:1]).all():
            return np.broadcast_to, (value[:1].copy(), value.shape)
        # Row numbers and slots ascend, so that their differences are small.
        steps = np.diff(value, axis=0, prepend=np.zeros_like(value[:1]))
        return _sum_steps, (ZSTD.encode(steps.tobytes()), value.dtype.str, value.shape)


def _read_table(data: bytes) -> pa.Table:
    return pyarrow.ipc.open_stream(data).read_all()


def _read_column(table: pa.Table) -> pa.Array:
    return table.column(0).combine_chunks()


def _sum_steps(data: bytes, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    return np.frombuffer(ZSTD.decode(data), dtype).reshape(shape).cumsum(axis=0, dtype=dtype)
