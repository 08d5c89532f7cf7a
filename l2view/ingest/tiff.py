"""TIFF files: their images as arrays of one group.

A GeoTIFF's overviews are images of their own, after the full one (TIFF 6.0, NewSubfileType);
the group names them by the multiscales convention for Zarr.
"""

from __future__ import annotations

import base64
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, EnumType
from typing import Any

import numpy as np
import virtual_tiff.codecs
from async_tiff.enums import Endianness, PhotometricInterpretation
from obspec_utils.protocols import ReadableFile
from obspec_utils.registry import ObjectStoreRegistry
from virtual_tiff import parser
from virtualizarr.manifests import ChunkManifest, ManifestArray, ManifestGroup, ManifestStore
from virtualizarr.manifests.manifest import INLINED_CHUNK_PATH
from zarr.abc.codec import BytesBytesCodec
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.core.sync import sync
from zarr_cm import multiscales

from l2view.arrays.cf import SCALING, zarr_attributes
from l2view.errors import IngestError
from l2view.granules.references import ArrayReferences
from l2view.ingest.granule import BandPacking
from l2view.stores.hierarchy import JSON
from l2view.text import first_line, join_names

FLOAT_PREDICTOR = "imagecodecs_floatpred"
INTERLEAVED = "ChunkyCodec"
"""virtual-tiff's codecs for TIFF's predictor 3, and for bands beside each other in a pixel."""

UNCOMPRESSED, JPEG = 1, 7
SEPARATE = 2
YCBCR = 6
"""Values of the tags Compression, PlanarConfiguration and PhotometricInterpretation."""

JPEG_COLORS = {0: ("GRAYSCALE",) * 2, 1: ("GRAYSCALE",) * 2, 2: ("RGB",) * 2, 6: ("YCBCR", "RGB")}
"""The colours of a JPEG stream and of its pixels, by the photometric interpretation."""

MSVC_NAMES = {"1.#INF": "inf", "-1.#INF": "-inf", "1.#QNAN": "nan", "-1.#QNAN": "nan"}
"""Floats as Microsoft's C library wrote them, and with it old versions of GDAL."""

FILL_VALUE_ITEM = re.compile(
    r'<Item\s+name="(?:[^"]*#)?(?:_FillValue|missing_value)"[^>]*>[^<]*</Item>'
)
ENDIAN = {Endianness.LittleEndian: "little", Endianness.BigEndian: "big"}

MAX_STRIP = 2**23
"""The most bytes of uncompressed strips that are taken as one chunk."""

TRANSPARENCY_MASK = 4
"""The photometric interpretation of a mask (TIFF 6.0, 8)."""


class _Endian(Enum):
    """What virtual-tiff 0.5 imports from zarr, which has had only the strings since 3.4."""

    little = "little"
    big = "big"


@dataclass(frozen=True)
class _Directory:
    """An image file directory of async-tiff, some of whose values are replaced."""

    directory: Any
    values: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.values[name] if name in self.values else getattr(self.directory, name)


def parse_tiff(
    url: str, reader: ReadableFile, stores: ObjectStoreRegistry[Any], threshold: int
) -> tuple[ManifestStore, dict[str, str]]:
    """Return a TIFF as references (see `l2view.ingest.formats.CheckedParser`)."""
    codecs: Any = virtual_tiff.codecs
    if not isinstance(codecs.Endian, EnumType):
        codecs.Endian = _Endian
    store, path = stores.resolve(url)
    tiff = sync(parser._open_tiff(path=path, store=store))
    endian = ENDIAN[tiff.endianness]
    groups: dict[str, ManifestGroup] = {}
    omitted: dict[str, str] = {}
    with warnings.catch_warnings():
        # Of codecs that are virtual-tiff's own, which the documentation names.
        warnings.filterwarnings("ignore", message="imagecodecs codecs are not in the Zarr")
        for name, directory in ((str(n), ifd) for n, ifd in enumerate(tiff.ifds)):
            try:
                array = _image(directory, url, endian, reader)
                groups[name] = ManifestGroup({name: array}, attributes=array.metadata.attributes)
            except Exception as error:  # virtual-tiff has many errors for what it can't take
                omitted[name] = first_line(error)
    return ManifestStore(ManifestGroup(groups=groups), registry=stores), omitted


def _image(directory: Any, url: str, endian: str, reader: ReadableFile) -> ManifestArray:
    """Return an image as references.

    What virtual-tiff refuses is put in a form that it takes: strips that don't divide the height,
    nodata that the data type doesn't have, JPEG streams that share tables.
    """
    dtype = parser._get_dtype(directory.sample_format, directory.bits_per_sample)
    items = directory.gdal_metadata
    values: dict[str, Any] = {
        "gdal_nodata": _representable(directory.gdal_nodata, dtype),
        "gdal_metadata": items and _without_fill_values(items),
        "jpeg_tables": None,
        "photometric_interpretation": directory.photometric_interpretation,
    }
    bits = {int(number) for number in directory.bits_per_sample}
    if dtype.kind != "b" and bits != {8 * dtype.itemsize}:
        raise IngestError("its pixels have a number of bits that no codec of Zarr's unpacks")
    is_jpeg = directory.compression == JPEG
    if is_jpeg and directory.photometric_interpretation == YCBCR:
        values["photometric_interpretation"] = PhotometricInterpretation.RGB
    height, rows = directory.image_height, directory.rows_per_strip
    is_partial = not directory.tile_height and rows and rows < height and height % rows
    if is_partial and directory.compression == UNCOMPRESSED:
        values |= _whole_strips(directory, dtype)
    elif is_partial and is_jpeg:
        raise IngestError("its strips of JPEG don't divide its height")
    elif is_partial:
        values["image_height"] = -(-height // rows) * rows
    changed: Any = _Directory(directory, values)
    image = parser._construct_manifest_array(ifd=changed, url=url, endian=endian)
    document: Any = image.metadata.to_dict()
    if is_jpeg:
        document["codecs"] = [
            codec if codec["name"] != "imagecodecs_jpeg" else _jpeg_codec(directory)
            for codec in document["codecs"]
        ]
    manifest = image.manifest
    if "image_height" in values:
        document["shape"] = (*document["shape"][:-2], height, document["shape"][-1])
        manifest = _with_full_strips(image, height, reader, dtype)
    return ManifestArray(ArrayV3Metadata.from_dict(document), manifest)


def _representable(text: str | None, dtype: np.dtype[Any]) -> str | None:
    """Return the text of a nodata value as the data type has it, None where it has none.

    GDAL compares pixels with a number of any kind: one that the data type lacks hides nothing.
    """
    try:
        number = float(MSVC_NAMES.get(text or "", text or ""))
    except ValueError:
        return None
    if dtype.kind == "f":
        return repr(number)
    if dtype.kind not in "iu" or not math.isfinite(number) or number != int(number):
        return None
    bounds = np.iinfo(dtype)
    # A float doesn't have all integers of 64 bits.
    value = int(text) if text and text.strip().lstrip("+-").isdigit() else int(number)
    return str(value) if bounds.min <= value <= bounds.max else None


def _without_fill_values(items: str) -> str:
    """Return GDAL's metadata without the fill values of a netCDF file that it was made from.

    Nodata says what is missing; these are of other data types.
    """
    return FILL_VALUE_ITEM.sub("", items)


def _whole_strips(directory: Any, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return uncompressed strips that lie one after another as such of a height that divides.

    Raises
    ------
    IngestError
        Where they don't.
    """
    offsets, counts = list(directory.strip_offsets), list(directory.strip_byte_counts)
    height, samples = directory.image_height, int(directory.samples_per_pixel)
    planes = samples if directory.planar_configuration == SEPARATE else 1
    row = directory.image_width * dtype.itemsize * samples // planes
    strips = len(offsets) // planes
    begins = []
    for plane in range(planes):
        own = slice(plane * strips, (plane + 1) * strips)
        ends = np.cumsum([offsets[own][0], *counts[own]])
        if ends[:-1].tolist() != offsets[own] or ends[-1] - ends[0] != height * row:
            raise IngestError("its strips don't divide its height, and lie apart")
        begins.append(offsets[own][0])
    divisors = [n for n in range(1, height + 1) if height % n == 0]
    fitting = [n for n in divisors if n >= directory.rows_per_strip and n * row <= MAX_STRIP]
    rows = min(fitting) if fitting else max(n for n in divisors if n == 1 or n * row <= MAX_STRIP)
    return {
        "rows_per_strip": rows,
        "strip_offsets": [begin + n * row for begin in begins for n in range(0, height, rows)],
        "strip_byte_counts": [rows * row] * (planes * height // rows),
    }


def _with_full_strips(
    image: ManifestArray, height: int, reader: ReadableFile, dtype: np.dtype[Any]
) -> ChunkManifest:
    """Return the references of compressed strips, the last of each plane copied in full length.

    Rows follow each other within a strip, so that it is padded before it is compressed.
    """
    manifest, chunk = image.manifest, image.metadata.chunks
    last = manifest.shape_chunk_grid[-2] - 1
    compressors: Any = [c for c in image.metadata.codecs if isinstance(c, BytesBytesCodec)]
    inlined = {}
    for index in np.ndindex(manifest.shape_chunk_grid):
        if index[-2] != last:
            continue
        reader.seek(int(manifest._offsets[index]))
        data: Any = reader.read(int(manifest._lengths[index]))
        for codec in reversed(compressors):
            data = codec._codec.decode(data)
        rows = height - last * chunk[-2]
        nbytes = math.prod(chunk) // chunk[-2] * dtype.itemsize
        data = bytes(data)[: rows * nbytes].ljust(chunk[-2] * nbytes, b"\0")
        for codec in compressors:
            data = codec._codec.encode(data)
        inlined[index] = bytes(data)
    paths, lengths = manifest._paths.copy(), manifest._lengths.copy()
    offsets = manifest._offsets.copy()
    for index, data in inlined.items():
        paths[index], offsets[index], lengths[index] = INLINED_CHUNK_PATH, 0, len(data)
    return ChunkManifest.from_arrays(paths=paths, offsets=offsets, lengths=lengths, inlined=inlined)


def _jpeg_codec(directory: Any) -> JSON:
    """Return the codec of JPEG streams with the tables and colours that a directory gives them.

    (TIFF Technical Note 2.)
    """
    colors = JPEG_COLORS.get(int(directory.photometric_interpretation))
    configuration: JSON = {}
    if directory.jpeg_tables:
        configuration["tables"] = base64.b64encode(bytes(directory.jpeg_tables)).decode()
    if colors is not None:
        configuration |= dict(zip(("colorspace_jpeg", "colorspace_data"), colors, strict=True))
    return {"name": "imagecodecs_jpeg", "configuration": configuration}


def flatten_images(
    arrays: list[ArrayReferences], attributes: Mapping[str, JSON], *, alone: bool
) -> tuple[list[ArrayReferences], dict[str, JSON], dict[str, str]]:
    """Return a TIFF's images as arrays ``0``, ``1``, … of one group, the full one first.

    Its parser makes a group of each, with an array of the same name. With `alone`, a single
    image becomes an array without a group. Returns the arrays, the attributes of groups, and why
    images are left out, by path.
    """
    renamed: list[ArrayReferences] = []
    omitted: dict[str, str] = {}
    for array in arrays:
        group, _, name = array.path.rpartition("/")
        path = name if name == group else array.path
        reason = _unreadable(array)
        if reason is None:
            renamed.append(
                replace(array, path=path, document=_with_standard_codecs(array.document))
            )
        else:
            omitted[path] = reason
    if alone and len(renamed) == 1 and not omitted:
        return [renamed[0].at("")], {}, {}
    images = {array.path for array in renamed} | omitted.keys()
    groups = {path: value for path, value in attributes.items() if path not in images}
    levels = _levels(renamed)
    if len(levels) > 1:
        convention = multiscales.create_convention_attrs(layout=_multiscales_layout(levels))
        groups[""] = {**groups.get("", {}), **convention}
    return renamed, groups, omitted


def pack_images(
    arrays: list[ArrayReferences], packing: BandPacking
) -> tuple[list[ArrayReferences], list[str]]:
    """Return images that are read as their Item says, where they don't say it, and notes."""
    packed, notes = [], []
    for array in arrays:
        attributes: JSON = array.document["attributes"]
        own = set(attributes).union(SCALING if attributes.keys() & set(SCALING) else ())
        added = {name: values for name, values in packing.items() if name not in own}
        several = {name for name, values in added.items() if len(values) > 1}
        if several:
            names = join_names(sorted(several))
            notes.append(f"{array.path} isn't decoded: its bands differ in {names}")
        elif attributes.get("photometric_interpretation") != TRANSPARENCY_MASK:
            attributes = attributes | {name: value for name, (value,) in added.items()}
            attributes = zarr_attributes(attributes, array.document["data_type"])
        packed.append(replace(array, document={**array.document, "attributes": attributes}))
    return packed, notes


def _unreadable(array: ArrayReferences) -> str | None:
    """Return what virtual-tiff's codecs would get wrong of an image, None for nothing."""
    codecs = {codec["name"]: codec.get("configuration") or {} for codec in array.document["codecs"]}
    if array.document["data_type"] == "bool":
        return "its pixels are single bits, which no codec of Zarr's unpacks"
    if FLOAT_PREDICTOR in codecs and INTERLEAVED in codecs:
        return "its bands are interleaved, and predicted as floats"
    if FLOAT_PREDICTOR in codecs and codecs.get("bytes", {}).get("endian") == "big":
        return "its big-endian values are predicted as floats"
    nbytes = math.prod(array.chunk_shape) * np.dtype(array.document["data_type"]).itemsize
    if codecs.keys() <= {"bytes", "transpose", INTERLEAVED} and (
        (array.lengths[array.lengths > 0] < nbytes).any()
    ):
        return "its pixels have a number of bits that no codec of Zarr's unpacks"
    return None


def _with_standard_codecs(document: JSON) -> JSON:
    """Return an array's document with codecs that every reader of Zarr has.

    virtual-tiff takes the bytes of pixels with several bands in Fortran's order, of axes in
    another order. That is a transposition to where the bands are the last axis.
    """
    names = [codec["name"] for codec in document["codecs"]]
    if INTERLEAVED not in names:
        return document
    codecs, at = list(document["codecs"]), names.index(INTERLEAVED)
    order = codecs[at - 1]["configuration"]["order"][::-1]
    codecs[at - 1] = {"name": "transpose", "configuration": {"order": order}}
    codecs[at] = {**codecs[at], "name": "bytes"}
    return {**document, "codecs": codecs}


def _levels(arrays: list[ArrayReferences]) -> list[ArrayReferences]:
    """Return the full image and its overviews, ever smaller."""
    full = next((array for array in arrays if array.path == "0"), None)
    if full is None or len(full.shape) < 2:
        return []
    levels = [full]
    for array in sorted(arrays, key=lambda image: -image.shape[-1] * image.shape[-2]):
        smaller = all(a < b for a, b in zip(array.shape[-2:], levels[-1].shape[-2:], strict=True))
        is_overview = (
            len(array.shape) == len(full.shape)
            and array.document["data_type"] == full.document["data_type"]
            and array.document["attributes"].get("photometric_interpretation") != TRANSPARENCY_MASK
            and _is_reduction(full.shape[-2:], array.shape[-2:])
        )
        if smaller and is_overview:
            levels.append(array)
    return levels


def _is_reduction(full: Sequence[int], small: Sequence[int]) -> bool:
    """Whether an image is another one by one scale, but for a pixel: else it is another page."""
    (height, width), (rows, columns) = full, small
    return abs(height * columns - width * rows) <= max(height, width)


def _multiscales_layout(levels: list[ArrayReferences]) -> list[multiscales.LayoutObject]:
    """Return the levels as the convention has them, each a reduction of the full one."""
    full = levels[0]
    layout: list[multiscales.LayoutObject] = [{"asset": full.path}]
    for level in levels[1:]:
        scale = np.divide(full.shape[-2:], level.shape[-2:]).tolist()
        transform: Any = {"scale": scale, "translation": [0.0, 0.0]}
        layout.append({"asset": level.path, "derived_from": full.path, "transform": transform})
    return layout
