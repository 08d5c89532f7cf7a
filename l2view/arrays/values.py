"""The stored values of an array as values of one data type, in NumPy and in Arrow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zarr
from numpy.typing import NDArray
from zarr.core.dtype.npy.bytes import VariableLengthBytes
from zarr.core.dtype.wrapper import ZDType

from l2view.arrays.arrow import arrow_type, to_arrow
from l2view.arrays.cf import Packing
from l2view.arrays.dtypes import in_native_order, zarr_dtype
from l2view.stores.hierarchy import JSON


@dataclass(frozen=True)
class ValueDecoder:
    """What the stored values of an array become: their dtype in NumPy, and type in Arrow.

    Integers stay integers where they are not scaled, whatever is missing among them. Without a
    `packing`, values stay as they are stored.
    """

    dtype: np.dtype[Any]
    type: pa.DataType
    packing: Packing | None = None

    @classmethod
    def raw(cls, data_type: ZDType[Any, Any]) -> ValueDecoder:
        """Return a decoder that leaves values as they are stored."""
        dtype = data_type.to_native_dtype()
        if isinstance(data_type, VariableLengthBytes):
            return cls(dtype, pa.binary())
        return cls(dtype, arrow_type(dtype))

    @classmethod
    def of_packing(cls, data_type: ZDType[Any, Any], packing: Packing) -> ValueDecoder:
        """Return a decoder that gives values as the CF conventions mean them.

        A `ValueError` says that they can't be decoded.
        """
        stored = cls.raw(data_type)
        if stored.dtype.kind == "S" or pa.types.is_string(stored.type):
            return cls(stored.dtype, pa.string(), packing)
        if stored.dtype.kind not in "iufb":
            return stored
        dtype = packing.read_as if packing.is_mask else packing.decoded_dtype
        if dtype.kind == "O":
            raise ValueError(f"its attributes {packing.attributes} say nothing of numbers")
        return cls(dtype, arrow_type(dtype), packing)

    @classmethod
    def of_document(cls, document: JSON, *, decode: bool = True) -> ValueDecoder:
        """Return the decoder of the array with a Zarr v3 document (see `of_packing`, `raw`)."""
        data_type = zarr_dtype(document["data_type"])
        if not decode:
            return cls.raw(data_type)
        return cls.of_packing(data_type, Packing.of_document(document))

    def cast(self, dtype: np.dtype[Any]) -> ValueDecoder:
        """Return the same values in a dtype that has all of them."""
        return self if dtype == self.dtype else replace(self, dtype=dtype, type=arrow_type(dtype))

    @property
    def wide(self) -> ValueDecoder:
        """The same values, doubles instead of singles.

        Singles are compared with the doubles of a query by an engine, and not by a table.
        """
        return self.cast(np.dtype(np.float64)) if pa.types.is_float32(self.type) else self

    def to_arrow(self, stored: NDArray[Any]) -> pa.Array:
        """Return stored values, of any shape, as an Arrow array in C order.

        A `ValueError` or `OverflowError` says that the type doesn't hold one of them.
        """
        if self.packing is None:
            return to_arrow(self._cast(stored), self.type)
        if pa.types.is_string(self.type):
            texts = stored.reshape(-1)
            if texts.dtype.kind == "S":
                encoding = str(self.packing.attributes.get("_Encoding", "utf-8"))
                texts = np.strings.decode(texts, encoding).astype(np.dtypes.StringDType())
            array = to_arrow(texts, self.type)
            missing = pa.array(self.packing.missing.tolist(), self.type)
            return pc.if_else(pc.is_in(array, missing), pa.scalar(None, self.type), array)
        if not self.packing.is_mask:
            decoded = self.packing.decode(stored)
            if decoded.dtype.kind == "O":
                raise ValueError("its times are none that nanoseconds since 1970 can tell")
            return to_arrow(self._cast(decoded), self.type)
        array = to_arrow(self._cast(stored.view(self.packing.read_as)), self.type)
        valid = self.packing.valid(stored)
        if valid is None:
            return array
        return pc.if_else(pa.array(valid.reshape(-1)), array, pa.scalar(None, array.type))

    def to_numpy(self, stored: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return stored numbers as values of `dtype`, and where they are valid.

        Both are of the shape of `stored`; None where no value is missing.
        """
        packing = self.packing
        if packing is not None and packing.is_mask:
            return self._cast(stored.view(packing.read_as)), packing.valid(stored)
        values = self._cast(stored if packing is None else packing.decode(stored))
        valid = values == values
        return values, None if valid.all() else valid

    def _cast(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values in the dtype of this column."""
        is_same = in_native_order(values.dtype) == in_native_order(self.dtype)
        return values if is_same or values.dtype.kind in "SUTOV" else values.astype(self.dtype)


def read_text(array: zarr.Array[Any]) -> str:
    """Return the text of an array of one, empty where it has no value."""
    value = next(iter(np.ravel(np.asarray(array[...]))), "")
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
