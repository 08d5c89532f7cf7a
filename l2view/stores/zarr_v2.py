"""Zarr v2 metadata, told as Zarr v3, of chunks that are read where they lie.

Keys, bytes and values stay the same: the ``v2`` chunk key encoding, filters and compressor as
codecs, ``order="F"`` as a transposition, ``_ARRAY_DIMENSIONS`` as dimension names.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
from zarr.abc.codec import ArrayArrayCodec, BytesBytesCodec, Codec
from zarr.core.metadata.v2 import ArrayV2Metadata
from zarr.errors import UnknownCodecError
from zarr.registry import get_codec_class

from l2view.errors import UnsupportedArrayError

DIMENSIONS = "_ARRAY_DIMENSIONS"  # where xarray keeps the dimension names of a v2 array
NCZARR = ("_NCZARR_ARRAY", "_nczarr_array")  # where netCDF-C keeps them, as paths under ``dimrefs``

JSON = dict[str, Any]


def array_document(zarray: JSON, attributes: JSON, *, masked: bool) -> JSON:
    """Return the v3 document of a v2 array by its ``.zarray`` and ``.zattrs``.

    With `masked`, the fill value is also the attribute by which xarray masks a v3 array, as it
    masks a v2 array by the fill value itself. An `UnsupportedArrayError` says that a filter,
    compressor or dtype has no v3 form.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dtypes without a v3 specification
        try:
            metadata = ArrayV2Metadata.from_dict({**zarray, "attributes": {}})
            codecs = _codecs(metadata)
            data_type = metadata.dtype.to_json(zarr_format=3)
            scalar: Any = metadata.fill_value
            if scalar is None:
                scalar = metadata.dtype.default_scalar()
            fill_value = metadata.dtype.to_json_scalar(scalar, zarr_format=3)
            if masked and metadata.fill_value is not None:  # where CF and xarray look for it in v3
                mask: Any = metadata.dtype.to_json_scalar(scalar, zarr_format=2)
                if isinstance(scalar, bytes):
                    mask = scalar.decode("latin-1")
                attributes = {**attributes, "_FillValue": mask}
        except (ValueError, TypeError, KeyError, UnknownCodecError, NotImplementedError) as error:
            raise UnsupportedArrayError(f"this Zarr v2 array has no v3 form: {error}") from error
    dimensions, attributes = _dimension_names(attributes, len(metadata.shape))
    document = {
        "zarr_format": 3,
        "node_type": "array",
        **grid_document(zarray),
        "data_type": data_type,
        "fill_value": fill_value,
        "codecs": codecs,
        "attributes": attributes,
    }
    if dimensions is not None:
        document["dimension_names"] = dimensions
    return document


def grid_document(zarray: JSON) -> JSON:
    """Return that part of the v3 document of a v2 array which says where its chunks are."""
    separator = zarray.get("dimension_separator", ".")
    return {
        "shape": zarray["shape"],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": zarray["chunks"]}},
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": separator}},
    }


def says_null(zarray: JSON, attributes: JSON) -> bool:
    """Return whether the fill value of a v2 array was chosen to stand for what is missing.

    xarray writes no other sign of it in v2. zarr-python fills with zero where it was told
    nothing, which is a number like any other.
    """
    return DIMENSIONS in attributes or zarray.get("fill_value") not in (None, 0, "", False)


def _dimension_names(attributes: JSON, rank: int) -> tuple[list[str] | None, JSON]:
    """Take the dimension names out of `attributes`."""
    attributes = dict(attributes)
    names = attributes.pop(DIMENSIONS, None)
    for key in NCZARR:
        if names is None and key in attributes:
            references = attributes[key].get("dimrefs", attributes[key].get("dimension_references"))
            names = references and [str(path).rsplit("/", 1)[-1] for path in references]
    usable = isinstance(names, list) and len(names) == rank
    return ([str(name) for name in names] if usable else None), attributes


def _codecs(metadata: ArrayV2Metadata) -> list[JSON]:
    """Return the v3 codecs that decode what the v2 filters and compressor encoded."""
    steps = [*(metadata.filters or ()), *([metadata.compressor] if metadata.compressor else [])]
    transpose: list[JSON] = []
    if metadata.order == "F" and len(metadata.shape) > 1:
        axes = list(range(len(metadata.shape)))[::-1]
        transpose = [{"name": "transpose", "configuration": {"order": axes}}]
    if steps and steps[0].codec_id in ("vlen-utf8", "vlen-bytes"):
        serializer: JSON = {"name": steps.pop(0).codec_id, "configuration": {}}
        return [*transpose, serializer, *(_bytes_codec(step) for step in steps)]
    arrays: list[JSON] = []
    dtype = metadata.dtype.to_native_dtype()
    for step in steps:
        kind, document = _find(step)
        if not issubclass(kind, ArrayArrayCodec):
            break
        arrays.append(document)
        dtype = _encoded_dtype(step, dtype)
    if dtype.hasobject:
        raise ValueError("objects are only supported as vlen-utf8 and vlen-bytes")
    orders = _byte_orders(dtype)
    if len(orders) > 1:
        raise ValueError("its fields differ in byte order")
    serializer = {"name": "bytes"}
    if orders:
        serializer["configuration"] = {"endian": orders.pop()}
    return [*transpose, *arrays, serializer, *map(_bytes_codec, steps[len(arrays) :])]


def _encoded_dtype(step: Any, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype, with its byte order, of what a filter makes of an array of `dtype`.

    A `ValueError` says that it expects another dtype, or that zarr can't follow it to the next.
    """
    configuration = step.get_config()
    takes = np.dtype(configuration.get("decode_dtype") or configuration.get("dtype") or dtype)
    if takes != dtype:
        raise ValueError(f"the filter {step.codec_id} is for {takes.str}, not {dtype.str}")
    match step.codec_id:
        case "packbits":
            return np.dtype("u1")
        case "astype":
            encoded: np.dtype[Any] = np.dtype(configuration["encode_dtype"])
        case "quantize" if np.dtype(configuration.get("astype") or takes) != takes:
            raise ValueError("zarr has no v3 form of the filter quantize with astype")
        case _:
            encoded = np.dtype(configuration.get("astype") or takes)
    return encoded


def _byte_orders(dtype: np.dtype[Any]) -> set[str]:
    """Return the byte orders of the numbers in `dtype`, none where all are single bytes."""
    if dtype.fields is not None:
        return {order for field in dtype.fields.values() for order in _byte_orders(field[0])}
    if dtype.subdtype is not None:
        return _byte_orders(dtype.subdtype[0])
    if dtype.byteorder == "|":
        return set()
    native = "=<" if sys.byteorder == "little" else "<"
    return {"little" if dtype.byteorder in native else "big"}


def _find(step: Any) -> tuple[type[Codec], JSON]:
    """Return the class and the document of zarr's wrapper of a numcodecs codec."""
    config = dict(step.get_config())
    name = "numcodecs." + config.pop("id")
    return get_codec_class(name), {"name": name, "configuration": config}


def _bytes_codec(step: Any) -> JSON:
    """Return the v3 form of a filter or compressor that maps bytes to bytes.

    Those that the v3 specification knows are written by its names, so that every reader has them,
    and what only an encoder heeds (level, shuffle, item size) is set to something valid.
    """
    match step.codec_id:
        case "zstd":
            configuration: JSON = {"level": step.level, "checksum": bool(step.checksum)}
        case "gzip":
            configuration = {"level": min(max(step.level, 0), 9)}
        case "blosc":
            configuration = {
                "cname": step.cname,
                "clevel": step.clevel,
                "shuffle": {0: "noshuffle", 2: "bitshuffle"}.get(step.shuffle, "shuffle"),
                "typesize": 1,
                "blocksize": step.blocksize,
            }
        case _:
            kind, document = _find(step)
            if not issubclass(kind, BytesBytesCodec):
                raise ValueError(f"the filter {step.codec_id} follows one that makes bytes")
            return document
    return {"name": step.codec_id, "configuration": configuration}
