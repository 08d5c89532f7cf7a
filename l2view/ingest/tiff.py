"""TIFF files: their images as references, each in the layout that a tag directory says.

What zarr's grids of chunks lack is put in a form that they have: strips that don't divide the
height, tiles that a file leaves out, pixels of a number of bits.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from async_tiff.enums import Endianness
from numpy.typing import NDArray
from obspec_utils.protocols import ReadableFile
from obspec_utils.registry import ObjectStoreRegistry
from virtual_tiff import parser
from virtualizarr.manifests import ManifestArray
from zarr.abc.codec import BytesBytesCodec
from zarr.core.dtype import parse_dtype
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.core.sync import sync

from l2view.arrays.codecs import PackedIntegers
from l2view.errors import IngestError
from l2view.ingest.manifests import Chunks, Manifests
from l2view.ingest.tiff_codecs import BYTEWISE, SEPARATE, UNCOMPRESSED, pixel_codecs, pixel_type
from l2view.ingest.tiff_metadata import absent_value, tag_attributes
from l2view.text import first_line

ENDIAN = {Endianness.LittleEndian: "little", Endianness.BigEndian: "big"}

MAX_STRIP = 2**23
"""The most bytes of uncompressed strips that are taken as one chunk."""


def parse_tiff(
    url: str, reader: ReadableFile, stores: ObjectStoreRegistry[Any], threshold: int
) -> Manifests:
    """Return a TIFF as references (see `l2view.ingest.formats.CheckedParser`)."""
    store, path = stores.resolve(url)
    try:
        tiff = sync(parser._open_tiff(path=path, store=store))
    except Exception as error:
        if type(error).__name__ != "RustPanic":  # async-tiff's own, which says nothing
            raise
        raise IngestError("async-tiff can't read its tags, which may be damaged") from error
    endian = ENDIAN[tiff.endianness]
    manifests = Manifests()
    with warnings.catch_warnings():
        # Of codecs that are virtual-tiff's own, which the documentation names.
        warnings.filterwarnings("ignore", message="imagecodecs codecs are not in the Zarr")
        for name, directory in ((str(n), ifd) for n, ifd in enumerate(tiff.ifds)):
            try:
                array = _image(directory, url, endian, reader)
                manifests.arrays[f"{name}/{name}"] = array
                manifests.groups[name] = dict(array.metadata.attributes)
            except Exception as error:  # of codecs, and of tags that contradict each other
                manifests.omitted[name] = first_line(error)
    return manifests


def _image(directory: Any, url: str, endian: str, reader: ReadableFile) -> ManifestArray:
    """Return an image as references."""
    dtype, bits = pixel_type(directory)
    height, width = directory.image_height, directory.image_width
    samples = int(directory.samples_per_pixel)
    bands = (samples,) if samples > 1 else ()
    planes = samples if directory.planar_configuration == SEPARATE else 1
    row = -(-width * samples // planes * bits // 8)  # bytes
    offsets: Any = directory.tile_offsets or directory.strip_offsets
    counts: Any = directory.tile_byte_counts or directory.strip_byte_counts
    if not offsets or not counts:
        raise IngestError("it says not where its pixels are")
    offsets, counts = (np.array(values, np.uint64) for values in (offsets, counts))
    is_partial = False
    if directory.tile_height:
        rows, columns = directory.tile_height, directory.tile_width
        row = -(-columns * samples // planes * bits // 8)
    else:
        rows, columns = min(directory.rows_per_strip or height, height), width
        is_partial = height % rows != 0
    if is_partial and directory.compression == UNCOMPRESSED:
        merged = _merge_strips(offsets, counts, planes, height, rows, row)
        if merged is not None:
            (rows, offsets, counts), is_partial = merged, False
    elif is_partial and directory.compression not in BYTEWISE:
        raise IngestError("its strips of JPEG or the like don't divide its height")
    grid = (planes, -(-height // rows), -(-width // columns))
    if math.prod(grid) != len(offsets) or len(offsets) != len(counts):
        raise IngestError(f"it has {len(offsets)} tiles or strips of {math.prod(grid)}")
    chunk = (*((samples // planes,) if bands else ()), rows, columns)
    is_stored = (offsets > 0) & (counts > 0)
    if directory.compression == UNCOMPRESSED:
        full = np.uint64(rows * row)
        if not is_partial and (counts[is_stored] < full).any():
            raise IngestError("its tiles or strips are shorter than its pixels")
        counts = np.minimum(counts, full)
    paths = np.where(is_stored, url, "").astype(np.dtypes.StringDType())
    shape = grid[-len(chunk) :]
    offsets, counts = (
        np.where(is_stored, values, 0).reshape(shape) for values in (offsets, counts)
    )
    chunks = Chunks(paths.reshape(shape), offsets, counts)
    metadata = ArrayV3Metadata(
        shape=(*bands, height, width),
        data_type=parse_dtype(dtype, zarr_format=3),
        chunk_grid={"name": "regular", "configuration": {"chunk_shape": chunk}},
        chunk_key_encoding={"name": "default"},
        fill_value=absent_value(directory.gdal_nodata, dtype),
        codecs=pixel_codecs(directory, dtype, bits, chunk, endian),
        attributes=tag_attributes(directory, dtype),
        dimension_names=("band", "y", "x") if bands else ("y", "x"),  # as rioxarray's
    )
    if is_partial:
        _pad_last_strips(metadata, chunks, row * (height % rows), row * rows, reader)
    return ManifestArray(metadata, chunks.to_manifest())


def _merge_strips(
    offsets: NDArray[np.uint64],
    counts: NDArray[np.uint64],
    planes: int,
    height: int,
    rows: int,
    row: int,
) -> tuple[int, NDArray[np.uint64], NDArray[np.uint64]] | None:
    """Return uncompressed strips that lie one after another as such of a height that divides.

    That is a number of rows of so many bytes, and offsets and lengths; None where they lie apart.
    """
    begins = offsets.reshape(planes, -1)
    lengths = counts.reshape(planes, -1)
    ends = begins + lengths
    if (begins[:, 1:] != ends[:, :-1]).any() or (ends[:, -1] - begins[:, 0] != height * row).any():
        return None
    divisors = [n for n in range(1, height + 1) if height % n == 0]
    fitting = [n for n in divisors if n >= rows and n * row <= MAX_STRIP]
    rows = min(fitting) if fitting else max(n for n in divisors if n == 1 or n * row <= MAX_STRIP)
    steps = np.arange(0, height, rows, dtype=np.uint64) * np.uint64(row)
    merged = (begins[:, :1] + steps).ravel()
    return rows, merged, np.full(len(merged), rows * row, np.uint64)


def _pad_last_strips(
    metadata: ArrayV3Metadata, chunks: Chunks, nbytes: int, full: int, reader: ReadableFile
) -> None:
    """Copy the last strip of each plane in full length.

    Rows follow each other within a strip, so that it is padded before it is compressed.
    """
    compressors: Any = [
        codec
        for codec in metadata.codecs
        if isinstance(codec, BytesBytesCodec) and not isinstance(codec, PackedIntegers)
    ]
    for index in np.ndindex(chunks.paths.shape):
        if index[-2] != chunks.paths.shape[-2] - 1 or not chunks.paths[index]:
            continue
        reader.seek(int(chunks.offsets[index]))
        data: Any = reader.read(int(chunks.lengths[index]))
        for codec in reversed(compressors):
            data = codec._codec.decode(data)
        data = bytes(data)[:nbytes].ljust(full, b"\0")
        for codec in compressors:
            data = codec._codec.encode(data)
        chunks.copy(index, bytes(data))
