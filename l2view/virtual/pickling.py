"""Columns as few bytes, for a view that travels to other processes.

Row numbers and slots ascend and shapes are mostly the same, so that Parquet's delta and
dictionary encodings leave a byte or two of each.
"""

from __future__ import annotations

import io
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from l2view.stores.hierarchy import JSON


def field_state(value: Any) -> JSON:
    """Return the fields of a dataclass for its pickle, without what was computed from them."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def table_bytes(table: pa.Table) -> bytes:
    """Return a table as compressed Parquet."""
    import pyarrow.parquet as pq

    integers = [field.name for field in table.schema if pa.types.is_integer(field.type)]
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        use_dictionary=[name for name in table.schema.names if name not in integers],
        column_encoding=dict.fromkeys(integers, "DELTA_BINARY_PACKED") or None,
        write_statistics=False,
    )
    return buffer.getvalue()


def read_table(data: bytes) -> pa.Table:
    """Return the table of `table_bytes`."""
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(data), use_threads=False)


def array_state(array: NDArray[Any]) -> Any:
    """Return an array of integers, of shape (n,) or (n, k), so that it pickles small."""
    if not array.size:
        return None, array.dtype.str, array.shape
    if (array == array[:1]).all():
        return len(array), array[:1].copy()
    columns = array.reshape(len(array), -1).T
    names = [str(number) for number in range(len(columns))]
    table = pa.table(dict(zip(names, map(pa.array, columns), strict=True)))
    return table_bytes(table), array.dtype.str, array.shape


def array_of(state: Any) -> NDArray[Any]:
    """Return the array of an `array_state`; it can't be written to."""
    if len(state) == 2:
        count, row = state
        return np.broadcast_to(row, (count, *row.shape[1:]))
    data, dtype, shape = state
    if data is None:
        return np.empty(shape, dtype)
    columns = [column.to_numpy() for column in read_table(data).columns]
    return np.stack(columns, axis=-1).astype(dtype).reshape(shape)
