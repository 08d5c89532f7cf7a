"""Chunk bytes to Arrow arrays.

Plain numbers are Arrow's buffers as soon as they are decompressed; zarrista (Rust) decodes what
else it knows, both without the GIL; zarr-python decodes the rest, to the same values.
"""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zarr
import zarrista
from numpy.typing import NDArray
from zarr.core.buffer import Buffer, cpu
from zarr.storage import MemoryStore

from l2view.arrays.arrow import in_unit, text_array, without_negative_zero
from l2view.arrays.dtypes import native_dtype
from l2view.arrays.quiet import QUIET
from l2view.errors import FieldError
from l2view.meta.schema import Field, raw_bits
from l2view.stores.hierarchy import JSON

POOL = pa.system_memory_pool()
"""Where values lie that may be kept. Arrow's default pool takes huge pages, of which what is kept
for long leaves much unused, and which a virtual machine may be slow to give."""


def decode(field: Field, raw: bytes | memoryview | None) -> pa.Array:
    """Decode one chunk of a field, None for one that isn't stored.

    It is as long as a whole chunk, also at the end of the field, and of the type `field.type`.

    A `FieldError` is raised where the bytes aren't what the field's document says.
    """
    document = {**field.document, "shape": [field.chunk_length], "attributes": {}}
    try:
        for decoder in (decode_with_arrow, decode_with_rust, decode_with_python):
            values = decoder(document, raw)
            if values is not None:
                break
        return as_field_array(values, field)
    except MemoryError:
        raise
    except Exception as error:  # each codec of either library has errors of its own
        raise FieldError(
            f'a chunk of the field "{field.name}" can\'t be decoded: {error}. '
            "Leave the field out of the search, or write it again"
        ) from error


def decode_with_arrow(document: JSON, raw: Any) -> NDArray[Any] | None:
    """Decode a chunk of numbers or times that is compressed at most; None for any other."""
    numbers, *compressors = document["codecs"]
    endian = numbers.get("configuration", {}).get("endian", "little")
    if raw is None or numbers["name"] != "bytes" or endian != "little":
        return None
    if raw_bits(document["data_type"]) or native_dtype(document["data_type"]).kind not in "iufmM":
        return None
    dtype = native_dtype(document["data_type"])
    size = document["shape"][0] * dtype.itemsize
    match [codec["name"] for codec in compressors]:
        case [] if len(raw) == size:
            buffer = raw
        case ["zstd"]:
            buffer = pa.Codec("zstd").decompress(raw, size, memory_pool=POOL)
        case _:
            return None
    return np.frombuffer(buffer, dtype=dtype)


def decode_with_rust(document: JSON, raw: Any) -> NDArray[Any] | pa.Array | None:
    """Decode a chunk with zarrista, or return None where it lacks a codec or data type."""
    bits = raw_bits(document["data_type"])
    # What is of a fixed length it hands over in other ways.
    if bits is None and native_dtype(document["data_type"]).kind not in "biufmMTO":
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
    with QUIET:  # of dtypes without a v3 specification
        return np.asarray(zarr.open_array(MemoryStore(chunks), mode="r")[:])


def as_field_array(values: NDArray[Any] | pa.Array, field: Field) -> pa.Array:
    """Convert stored values to an Arrow array of the field's type, with its NULLs."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biufmM":
        array = _numbers(values, field)
    else:
        array = text_array(values, field.type)
        if field.nulls:
            is_null = pc.is_in(array, pa.array(field.nulls, array.type))
            array = pc.if_else(is_null, pa.scalar(None, array.type), array)
    if field.geometry is not None:  # Zarr's strings have no NULL, and nothing has no outline
        empty = pc.equal(pc.binary_length(array), 0)
        if pc.any(empty).as_py():
            array = pc.if_else(empty, pa.scalar(None, array.type), array)
    return array


def _numbers(values: NDArray[Any], field: Field) -> pa.Array:
    """Convert numbers and times; the stored values say which are NULL."""
    kind, packing = field.type, field.packing
    times = values.dtype.kind in "mM"
    if times and not field.nulls and np.datetime_data(values.dtype) == (kind.unit, 1):
        return pa.array(values)  # for which NaT is NULL
    integers = values.view(f"i{values.dtype.itemsize}") if times else values
    # With a mask, Arrow takes only what is masked for NULL.
    missing = values != values
    for null in field.nulls:
        missing |= integers == null
    if packing is not None and (packing.is_time or packing.is_scaled):
        values = packing.decode(values, getattr(kind, "unit", "ns"))
        if values.dtype.kind == "O":
            raise OverflowError(f"a time is beyond what {kind} can tell")
    elif packing is not None and packing.read_as != packing.dtype:
        values = values.view(packing.read_as)
    if values.dtype.kind in "mM":
        values = in_unit(values, kind.unit)
        missing |= np.isnat(values)
    elif pa.types.is_floating(kind):
        values = without_negative_zero(values.astype(kind.to_pandas_dtype(), copy=False))
    elif pa.types.is_boolean(kind):
        values = values.astype(bool)
    else:
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return pa.array(values, mask=missing if missing.any() else None)
