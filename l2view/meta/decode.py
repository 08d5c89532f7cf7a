"""Chunk bytes to Arrow arrays.

zarrista (Rust, without the GIL) decodes what it knows; zarr-python decodes the rest.
Which of the two did it can't be told from the values.
"""

from __future__ import annotations

import json
import warnings
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zarr
import zarrista
from numpy.typing import NDArray
from zarr.core.buffer import Buffer, cpu
from zarr.storage import MemoryStore

from l2view.errors import FieldError
from l2view.hierarchy import JSON
from l2view.meta.cf import unpack
from l2view.meta.schema import NUMBERS, Field, raw_bits, type_name

RUST_TYPES = frozenset(
    {*NUMBERS, "string", "bytes", "variable_length_bytes", "numpy.datetime64", "numpy.timedelta64"}
)
"""Data types whose values zarrista hands over as this module expects them."""


def decode(field: Field, raw: bytes | memoryview | None) -> pa.Array:
    """Decode one chunk of a field.

    Parameters
    ----------
    field
        The field.
    raw
        The chunk as it is stored, None where it isn't.

    Returns
    -------
    pyarrow.Array
        As long as a whole chunk, also at the end of the field, of the type `field.type`.

    Raises
    ------
    FieldError
        Where the bytes aren't what the field's document says.
    """
    document = {**field.document, "shape": [field.chunk_length], "attributes": {}}
    try:
        values = decode_with_rust(document, raw)
        if values is None:
            values = decode_with_python(document, raw)
        return _normalised(values, field)
    except Exception as error:  # each codec of either library has errors of its own
        raise FieldError(
            f'a chunk of the field "{field.name}" can\'t be decoded: {error}. '
            "Leave the field out of the search, or write it again"
        ) from error


def decode_with_rust(document: JSON, raw: Any) -> NDArray[Any] | pa.Array | None:
    """Decode a chunk with zarrista, or return None where it lacks a codec or data type."""
    bits = raw_bits(document["data_type"])
    if bits is None and type_name(document["data_type"]) not in RUST_TYPES:
        return None
    try:
        metadata = cast("Any", document)
        array = zarrista.Array.from_metadata(metadata, zarrista.store.MemoryStore(), "/field")
    except zarrista.exceptions.ArrayCreateError:
        return None
    if raw is not None:
        array.store_encoded_chunk([0], raw)
    tensor = array.retrieve_chunk([0])
    if isinstance(tensor, zarrista.VariableLengthTensor):
        return pa.array(tensor)
    if not isinstance(tensor, zarrista.FixedLengthTensor):
        return None
    if bits is not None:
        buffers = [None, pa.py_buffer(tensor.buffer())]
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(bits // 8), tensor.shape[0], buffers)
    return tensor.to_numpy()


def decode_with_python(document: JSON, raw: Any) -> NDArray[Any]:
    """Decode a chunk with zarr-python."""
    chunks: dict[str, Buffer] = {"zarr.json": cpu.Buffer.from_bytes(json.dumps(document).encode())}
    if raw is not None:
        separator = document["chunk_key_encoding"].get("configuration", {}).get("separator", "/")
        default = document["chunk_key_encoding"]["name"] == "default"
        chunks[f"c{separator}0" if default else "0"] = cpu.Buffer.from_bytes(bytes(raw))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dtypes without a v3 specification
        return np.asarray(zarr.open_array(MemoryStore(chunks), mode="r")[:])


def _normalised(values: NDArray[Any] | pa.Array, field: Field) -> pa.Array:
    """Return `values` as an Arrow array of the field's type, with its NULLs."""
    nulls = field.null
    if isinstance(values, np.ndarray) and field.packed:
        values, nulls = _unpacked(values, field), None
    if isinstance(values, pa.Array):
        array = values.cast(field.type)
    elif values.dtype.kind == "f":
        # Adding zero makes -0.0 one with 0.0, which engines otherwise tell apart.
        single = values.astype(field.type.to_pandas_dtype(), copy=False) + 0
        array = pa.array(single, from_pandas=True)
    elif values.dtype.kind in "mM":
        array = pa.array(values.astype(f"{values.dtype.kind}8[{field.type.unit}]"))
    elif values.dtype.kind == "S":
        array = pa.array(values.astype(object), pa.binary()).cast(pa.string())
    elif values.dtype.kind in "UT":
        array = pa.array(values.astype(np.dtypes.StringDType()), pa.string())
    elif values.dtype.kind == "V":
        array = pa.array(values.astype(object), pa.binary())
    elif values.dtype.kind == "O":
        array = pa.array(values, field.type)
    else:
        array = pa.array(values.astype(values.dtype.newbyteorder("="), copy=False))
    if nulls is not None:
        array = _with_null(array, nulls)
    if field.geometry is not None:  # Zarr's strings have no NULL, and nothing has no outline
        array = _with_null(array, b"" if field.geometry == "WKB" else "")
    return array


def _unpacked(values: NDArray[Any], field: Field) -> NDArray[Any]:
    """Return what packed numbers mean, with NaN or NaT for NULL."""
    missing = np.zeros(len(values), dtype=bool)
    if field.null is not None:
        missing |= values == field.null
    if values.dtype.kind == "f":
        missing |= np.isnan(values)
    meant = np.array(unpack(np.where(missing, 0, values), field.attributes, field.type))
    meant[missing] = "NaT" if meant.dtype.kind in "mM" else np.nan
    return meant


def _with_null(array: pa.Array, null: Any) -> pa.Array:
    """Return `array` with NULL wherever it holds `null`."""
    if pa.types.is_temporal(array.type):
        held = pc.equal(array.cast(pa.int64()), pa.scalar(null, pa.int64()))
    elif isinstance(null, float) and null != null:
        return array  # NaN is NULL already
    else:
        held = pc.equal(array, pa.scalar(null, array.type))
    return pc.if_else(pc.fill_null(held, False), pa.scalar(None, array.type), array)
