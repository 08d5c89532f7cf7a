"""The pixels of a TIFF's image: their data type, and the codecs of Zarr that decode them.

Tables stand for tags' values (TIFF 6.0, and TIFF Technical Note 2 for JPEG). What no codec decodes
as GDAL does is an `IngestError`.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from virtual_tiff.constants import COMPRESSORS

from l2view.arrays.codecs import PACKED_INTEGERS
from l2view.errors import IngestError
from l2view.stores.hierarchy import JSON

KINDS = {1: "u", 2: "i", 3: "f", 4: "u", 6: "c"}
"""The kinds of NumPy's data types, by the tag SampleFormat."""

SIZES = {"u": (8, 16, 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64), "c": (64, 128)}
"""The bits that NumPy's data types have."""

SEPARATE = 2
"""Of the tag PlanarConfiguration: bands aren't interleaved."""

UNCOMPRESSED, JPEG, LERC, WEBP = 1, 7, 34887, 50001
BYTEWISE = frozenset({UNCOMPRESSED, 5, 8, 32773, 32946, 34925, 50000})
"""The compressions of bytes, whatever they are of; all others are of pixels."""

LERC_COMPRESSORS = {1: 8, 2: 50000}
"""What LERC's bytes are compressed by in addition, by its tag LercParameters (GDAL)."""

CMYK, YCBCR, CIELAB = 5, 6, 8
"""Photometric interpretations of colours that GDAL converts."""

JPEG_COLORS: dict[int, tuple[str, ...]] = {
    1: ("GRAYSCALE", "GRAYSCALE"),
    2: (),
    3: ("RGB", "RGB"),
    4: ("CMYK", "CMYK"),
}
"""The colours of JPEG streams and of pixels by the number of bands, of bands that stay as they are.

Those of YCbCr become red, green and blue, as GDAL has it.
"""


def pixel_type(directory: Any) -> tuple[np.dtype[Any], int]:
    """Return the data type of an image's pixels as GDAL reads them, and how many bits each has."""
    formats = {int(number) for number in directory.sample_format}
    depths = {int(number) for number in directory.bits_per_sample}
    if len(formats) > 1 or len(depths) > 1:
        raise IngestError("its bands are of several data types")
    (bits,), kind = depths, KINDS.get(formats.pop())
    if kind is None:
        raise IngestError("its pixels are complex integers, which Zarr doesn't have")
    size = next((size for size in SIZES[kind] if bits <= size), None)
    if size is None or (bits != size and (kind != "u" or bits > 16)):
        raise IngestError(f"its pixels have {bits} bits, a number that no codec of Zarr's unpacks")
    return np.dtype(f"{kind}{size // 8}"), bits


def pixel_codecs(
    directory: Any, dtype: np.dtype[Any], bits: int, chunk: tuple[int, ...], endian: str
) -> list[JSON]:
    """Return the codecs of an image, whose chunks are of bands, rows and columns, or without bands.

    Neighbours are predicted along rows: predictor 2 of each band alone, and predictor 3 of bytes
    as they are stored, whose order is the same in all files.
    """
    compression, predictor = int(directory.compression), int(directory.predictor or 1)
    is_interleaved = len(chunk) == 3 and directory.planar_configuration != SEPARATE
    stored = (*chunk[1:], chunk[0]) if is_interleaved else chunk
    is_packed = bits != 8 * dtype.itemsize
    samples = chunk[0] if len(chunk) == 3 else 1
    _require_convertible(directory, dtype, samples)
    if is_packed and (predictor != 1 or compression not in BYTEWISE):
        raise IngestError(f"its pixels of {bits} bits are predicted, or compressed as pixels")
    if predictor == 2 and dtype.kind == "c" and endian == "big":
        raise IngestError("its big-endian complex pixels are predicted")
    if compression == LERC and samples > 1 and directory.extra_samples:
        raise IngestError("its LERC pixels may have alpha as a mask")
    codecs: list[JSON] = []
    if predictor == 2:
        codecs.append({"name": "HorizontalDeltaCodec"})
    if is_interleaved:
        codecs.append({"name": "transpose", "configuration": {"order": [1, 2, 0]}})
    if predictor == 3:
        axis = -2 if is_interleaved else -1
        codecs.append(_codec("imagecodecs_floatpred", shape=stored, dtype=dtype.str, axis=axis))
    codecs.append(_codec("bytes", endian="little" if predictor == 3 or is_packed else endian))
    if is_packed:
        row = stored[-1] * stored[-2] if is_interleaved else stored[-1]
        configuration = {"dtype": dtype.str, "bitspersample": bits, "runlen": row}
        codecs.append(_codec(PACKED_INTEGERS, **configuration))
    return codecs + _compressors(directory, compression, samples)


def _require_convertible(directory: Any, dtype: np.dtype[Any], samples: int) -> None:
    """Raise an `IngestError` where GDAL converts colours in a way that no codec of Zarr's does."""
    photometric = int(directory.photometric_interpretation)
    is_jpeg = directory.compression == JPEG
    converted = {
        CMYK: dtype.itemsize == 1,
        YCBCR: not is_jpeg or samples != 3,
        CIELAB: True,
    }
    if converted.get(photometric, False) or (is_jpeg and samples not in JPEG_COLORS):
        raise IngestError(
            f"its {samples} bands are of colours ({photometric}) that no codec of Zarr's converts"
        )


def _codec(name: str, **configuration: Any) -> JSON:
    return {"name": name, "configuration": configuration}


def _compressors(directory: Any, compression: int, samples: int) -> list[JSON]:
    """Return the codecs from bytes to bytes."""
    if compression == UNCOMPRESSED:
        return []
    if compression == JPEG:
        return [_jpeg_codec(directory, samples)]
    if compression == WEBP:
        return [_codec("imagecodecs_webp", hasalpha=samples == 4)]
    compressions = [compression]
    if compression == LERC and (number := (directory.lerc_parameters or [0, 0])[1]):
        compressions.append(LERC_COMPRESSORS.get(number, number))
    codecs: list[Any] = [COMPRESSORS.get(number) for number in compressions]
    if None in codecs:
        raise IngestError(f"its compression {compression} is none that a codec of Zarr's decodes")
    return [codec().to_dict() for codec in codecs]


def _jpeg_codec(directory: Any, samples: int) -> JSON:
    """Return the codec of JPEG streams with the tables and colours that a directory gives them."""
    colors = JPEG_COLORS[samples]
    if int(directory.photometric_interpretation) == YCBCR and samples == 3:
        colors = ("YCBCR", "RGB")
    configuration: JSON = {}
    if directory.jpeg_tables:
        configuration["tables"] = base64.b64encode(bytes(directory.jpeg_tables)).decode()
    if colors:
        configuration |= dict(zip(("colorspace_jpeg", "colorspace_data"), colors, strict=True))
    return _codec("imagecodecs_jpeg", **configuration)
