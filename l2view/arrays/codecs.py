"""Codecs that decode at once, where zarr's own take longer or its event loop.

A TIFF's pixels are predicted from their neighbours, and deflated. virtual-tiff decodes the first
in a coroutine; libdeflate inflates in half of zlib's time, as the size of a chunk is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import numpy as np
from zarr.abc.codec import ArrayArrayCodec, BytesBytesCodec, Codec
from zarr.codecs.numcodecs import Zlib
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer

from l2view.stores.hierarchy import JSON

try:
    import imagecodecs
except ModuleNotFoundError:  # of the extra tiff
    imagecodecs = None  # type: ignore[assignment]

HORIZONTAL_DELTA = "HorizontalDeltaCodec"  # virtual-tiff's codec for TIFF's predictor 2

PACKED_INTEGERS = "imagecodecs_packints"  # imagecodecs' name, of which virtual-tiff has no codec


def faster_codec(codec: Codec) -> Codec:
    """Return a codec that decodes the same, in less time where one is known."""
    if type(codec).__name__ == HORIZONTAL_DELTA:
        return HorizontalDelta()
    if isinstance(codec, Zlib) and imagecodecs is not None:
        return Inflate(codec)
    return codec


class ForReading:
    """What codecs lack that only decode."""

    def _encode_sync(self, *arguments: Any, **named: Any) -> NoReturn:
        raise NotImplementedError(f"{type(self).__name__} is for reading")

    def compute_encoded_size(self, *arguments: Any, **named: Any) -> NoReturn:
        """Raise, as nothing is encoded."""
        raise NotImplementedError(f"{type(self).__name__} is for reading")


@dataclass(frozen=True)
class HorizontalDelta(ForReading, ArrayArrayCodec):
    """Differences between neighbours along the last axis (TIFF 6.0, section 14), for reading."""

    is_fixed_size = True

    def _decode_sync(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        # They are those of the bits as unsigned integers, whatever the data type, and wrap around.
        values = chunk_array.as_numpy_array()
        bits = np.dtype(f"{values.dtype.byteorder}u{values.dtype.itemsize}")
        decoded = np.cumsum(values.view(bits), axis=-1, dtype=bits.newbyteorder("="))
        return chunk_spec.prototype.nd_buffer.from_numpy_array(
            decoded.view(values.dtype.newbyteorder("="))
        )


@dataclass(frozen=True)
class Inflate(ForReading, BytesBytesCodec):
    """DEFLATE in zlib's format (RFC 1950), for reading.

    `codec` decodes those that aren't as long as their chunk.
    """

    codec: Any
    is_fixed_size = False

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        itemsize = chunk_spec.dtype.to_native_dtype().itemsize
        decoded = np.empty(math.prod(chunk_spec.shape) * itemsize, np.uint8)
        try:
            inflated = imagecodecs.deflate_decode(chunk_bytes.as_buffer_like(), out=decoded.data)
        except (imagecodecs.DeflateError, ValueError):
            inflated = None
        if inflated is None or len(inflated) != len(decoded):
            return self.codec._decode_sync(chunk_bytes, chunk_spec)  # type: ignore[no-any-return]
        return chunk_spec.prototype.buffer.from_array_like(decoded)


@dataclass(frozen=True)
class PackedIntegers(ForReading, BytesBytesCodec):
    """Unsigned integers of any number of bits (TIFF 6.0, BitsPerSample), for reading.

    Each run of `runlen` integers begins with a byte, the highest bit first.
    """

    dtype: str
    bitspersample: int
    runlen: int
    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: JSON) -> Self:
        """Return the codec of Zarr v3 metadata."""
        return cls(**data["configuration"])

    def to_dict(self) -> Any:
        """Return the codec's Zarr v3 metadata."""
        return {"name": PACKED_INTEGERS, "configuration": dict(self.__dict__)}

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        integers = imagecodecs.packints_decode(
            chunk_bytes.to_bytes(), self.dtype, self.bitspersample, runlen=self.runlen
        )
        return chunk_spec.prototype.buffer.from_array_like(integers.view(np.uint8))

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return self._decode_sync(chunk_bytes, chunk_spec)
