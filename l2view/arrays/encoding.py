"""One encoding for the arrays of granules that differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2view.arrays.cf import Packing
from l2view.arrays.dtypes import native_dtype, zarr_dtype, zarr_dtype_of
from l2view.stores.hierarchy import JSON

NULL_TIME = -(2**63)  # NumPy's NaT as an integer

TIME_ATTRIBUTES: dict[str, JSON] = {
    "M": {
        "units": "nanoseconds since 1970-01-01",
        "calendar": "proleptic_gregorian",
        "_FillValue": NULL_TIME,
    },
    "m": {"units": "nanoseconds", "dtype": "timedelta64[ns]", "_FillValue": NULL_TIME},
}
"""The attributes of times and lengths of time in nanoseconds, by NumPy's kind."""

ENCODABLE = frozenset({
    *("bytes", "transpose", "vlen-utf8", "vlen-bytes", "blosc", "gzip", "zstd", "crc32c"),
    *(f"numcodecs.{name}" for name in ("zlib", "shuffle", "fletcher32", "lz4", "bz2", "lzma")),
})  # fmt: skip
"""Codecs that encode as well as they decode, and lose nothing."""


def encodable_codecs(codecs: Sequence[JSON], data_type: str | JSON) -> tuple[JSON, ...]:
    """Return codecs for chunks that are computed: those within shards, if they can encode.

    Where they can't, or lose something, chunks are plain bytes.
    """
    for codec in codecs:
        if codec["name"] == "sharding_indexed":
            codecs = codec["configuration"]["codecs"]
    if ENCODABLE.issuperset(codec["name"] for codec in codecs):
        return tuple(codecs)
    return ArrayEncoding.of_values(native_dtype(data_type)).codecs


@dataclass(frozen=True)
class ArrayEncoding:
    """How the values of one array are stored, for a chunk with the axes of a granule's own.

    By `attributes` its values are read; `decoded` ones are no stored numbers as they were.
    """

    data_type: str | JSON
    codecs: tuple[JSON, ...]
    fill_value: Any
    attributes: JSON
    decoded: bool

    @classmethod
    def of_variant(cls, variant: JSON, codecs: Sequence[JSON], *, padded: bool) -> ArrayEncoding:
        """Return the encoding of a variant, a Zarr v3 document without grid, as it is stored.

        With `padded`, its fill value stands for what isn't there.
        """
        packing, fill = Packing.of_document(variant), variant["fill_value"]
        if padded and (missing := packing.missing_scalar) is not None:
            fill = zarr_dtype(variant["data_type"]).to_json_scalar(missing, zarr_format=3)
        return cls(variant["data_type"], tuple(codecs), fill, packing.to_zarr(), decoded=False)

    @classmethod
    def of_values(cls, dtype: np.dtype[Any], codecs: Sequence[JSON] | None = None) -> ArrayEncoding:
        """Return the encoding of decoded values; times are nanoseconds since 1970.

        `codecs` are those of chunks that pass as they are, None for the bytes of the values.
        """
        attributes = dict(TIME_ATTRIBUTES.get(dtype.kind, {}))
        stored = np.dtype(np.int64) if attributes else dtype
        data_type = zarr_dtype_of(stored)
        fill = attributes.get("_FillValue")
        if fill is None:
            missing = np.nan if dtype.kind in "fc" else data_type.default_scalar()
            fill = data_type.to_json_scalar(missing, zarr_format=3)
        if codecs is None:
            serializer: JSON = {"name": "vlen-utf8" if stored.kind in "TO" else "bytes"}
            if stored.itemsize > 1 and stored.kind not in "SVbTO":
                serializer["configuration"] = {"endian": "little"}
            codecs = [serializer]
        name: Any = data_type.to_json(zarr_format=3)
        return cls(name, tuple(codecs), fill, attributes, decoded=True)

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's dtype of what is stored."""
        return native_dtype(self.data_type)

    @property
    def has_missing(self) -> bool:
        """Whether a stored number stands for what is missing."""
        return Packing.of(self.attributes, self.dtype).missing_scalar is not None

    def accepts_unchanged(self, variant: JSON) -> bool:
        """Return whether the chunks of a variant already have this encoding."""
        if json.dumps(variant["data_type"]) != json.dumps(self.data_type):
            return False
        if json.dumps(variant["codecs"]) != json.dumps(list(self.codecs)):
            return False
        packing = Packing.of_document(variant)
        return packing.is_identity if self.decoded else packing.to_zarr() == self.attributes

    def encode(self, stored: NDArray[Any], variant: JSON) -> NDArray[Any]:
        """Return the stored numbers of a variant as this encoding stores them.

        A `ValueError` says that a time is one that nanoseconds can't tell.
        """
        if not self.decoded:
            return stored.astype(self.dtype, copy=False)
        packing = Packing.of_document(variant)
        values = packing.decode(stored)
        if values.dtype == object and packing.is_time:
            raise ValueError("its times are none that nanoseconds since 1970 can tell")
        if values.dtype.kind in "mM":
            values = values.astype(f"{values.dtype.kind}8[ns]").view(np.int64)
        return values.astype(self.dtype, copy=False)
