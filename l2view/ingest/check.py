"""Whether a granule's arrays can be read from their references, and well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import prod
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.core.sync import sync
from zarr.storage import MemoryStore, StorePath

from l2view.arrays.cf import Packing
from l2view.arrays.dtypes import in_native_order, native_dtype
from l2view.arrays.quiet import QUIET
from l2view.granules.profile import DEFAULT_KEYS
from l2view.granules.references import ArrayReferences, GranuleReferences
from l2view.ingest.files import FileInfo, file_info, read_range
from l2view.stores.hierarchy import METADATA_KEYS
from l2view.stores.urls import root_of
from l2view.text import first_line, join_names, strip_credentials

CONTAINED = frozenset({"file", "s3", "s3a", "gs", "gcs", "http", "https"})
"""The schemes of files that Icechunk can refer to."""

LARGEST = 2**25
"""The bytes of values up to which a chunk is decoded."""

THREADS = 8
"""The arrays of which a chunk is read at a time."""

MANY = 1_000
SMALL = 2**10
"""The mean bytes of so many chunks below which they are slow to read."""


def notes_on_chunks(arrays: Iterable[ArrayReferences]) -> list[str]:
    """Return notes on arrays whose chunks are slow to read."""
    slow = [
        array.path
        for array in arrays
        if (count := len(array.locations) - array.locations.count("")) > MANY
        and int(array.lengths.sum()) < SMALL * count
    ]
    if not slow:
        return []
    return [f"the chunks of {join_names(slow)} are many and small, which is slow to read"]


def notes_on_scales(arrays: Iterable[ArrayReferences]) -> list[str]:
    """Return a note on arrays of HDF4 by whose scale a product may mean what CF doesn't."""
    scales = {array.path: Packing.of_document(array.document).attributes for array in arrays}
    doubtful = [
        path
        for path, attributes in scales.items()
        if attributes.get("add_offset", 0) != 0 or attributes.get("scale_factor", 1) > 1
    ]
    meant = "scale_factor * (stored - add_offset), or stored / scale_factor"
    decoded = "decode to scale_factor * stored + add_offset (CF), where products in HDF4 may mean"
    return [f"{join_names(doubtful)} {decoded} {meant}"] if doubtful else []


def unfound_chunks(array: ArrayReferences, folder: str, infos: list[FileInfo]) -> str | None:
    """Return why a Zarr array in a folder is left out, None where its parser found all of it."""
    if array.files or array.inlined or 0 in array.shape:
        return None
    inside = f"{folder}/"
    names = (info.url.rpartition("/")[2] for info in infos if info.url.startswith(inside))
    if any(name not in METADATA_KEYS for name in names):
        return "its chunks have names that VirtualiZarr's parser doesn't look for"
    return None


def find_targets(
    arrays: Sequence[ArrayReferences], url: str, infos: Sequence[FileInfo]
) -> tuple[dict[str, FileInfo], dict[str, str]]:
    """Return a file and those that it refers to, and why others can't be referred to, by URL."""
    targets = {info.url: info for info in infos}
    unreachable: dict[str, str] = {}
    for target in sorted({location for array in arrays for location in array.files}):
        if urlsplit(target).scheme not in CONTAINED:
            root = strip_credentials(root_of(target))
            unreachable[target] = f"Icechunk can't refer to files at {root}"
        elif target.startswith("file:") and not url.startswith("file://"):
            unreachable[target] = f"it refers to a file of this machine, {target}"
        elif target in targets:
            continue
        elif (info := file_info(target)) is None:
            unreachable[target] = (
                f"it refers to {strip_credentials(target)}, where there is no file"
            )
        else:
            targets[target] = info
    return targets, unreachable


def range_error(array: ArrayReferences, files: Mapping[str, FileInfo]) -> str | None:
    """Return what is wrong with an array whose chunks reach beyond their files."""
    if not array.files:
        return None
    if len(array.files) == 1:
        limits: Any = np.uint64(files[next(iter(array.files))].size)
    else:
        limits = np.array([files[u].size if u else 0 for u in array.locations], np.uint64)
    if (array.offsets + array.lengths > limits).any():
        return "some of its chunks end behind their file, which may be cut off"
    return None


def size_reason(nbytes: int, threshold: int) -> str:
    """Return why so many bytes aren't copied, and what lets them be."""
    return (
        f"its {nbytes:,} bytes are more than inline_threshold={threshold:,} "
        f"(--inline-threshold {nbytes} copies it)"
    )


def decode_chunk(metadata: ArrayV3Metadata, data: bytes | None) -> NDArray[Any]:
    """Return the values of an array with one chunk; without bytes, its fill values."""
    store = MemoryStore()
    if data is not None:
        key = metadata.encode_chunk_key((0,) * len(metadata.shape))
        sync(store.set(key, default_buffer_prototype().buffer.from_bytes(data)))
    values = np.asarray(zarr.Array(zarr.AsyncArray(metadata, StorePath(store)))[...])
    return values.astype(in_native_order(values.dtype))


_decodable: set[str] = set()
"""The profiles of which this process has decoded a chunk of each array."""


def decodable_arrays(references: GranuleReferences) -> GranuleReferences:
    """Return a granule's references without the arrays of which a chunk can't be decoded.

    Of the granules of one profile only the first is decoded in each process.
    """
    name = references.profile.name
    if name in _decodable:
        return references
    with ThreadPoolExecutor(THREADS) as pool:
        errors = list(pool.map(_decoding_error, references.arrays))
    if not any(errors):
        _decodable.add(name)
        return references
    pairs = list(zip(references.arrays, errors, strict=True))
    omitted = {array.path: error for array, error in pairs if error is not None}
    arrays = tuple(array for array, error in pairs if error is None)
    return replace(references, arrays=arrays, omitted={**references.omitted, **omitted})


def _decoding_error(array: ArrayReferences) -> str | None:
    """Return why the last chunk of an array can't be decoded, None where it is too large.

    An `IngestError` says that it can't be read.
    """
    try:
        itemsize = native_dtype(array.document["data_type"]).itemsize
        if max(prod(array.chunk_shape) * itemsize, int(array.lengths.max(initial=0))) > LARGEST:
            return None
        with QUIET:  # of data types without a specification
            metadata = ArrayV3Metadata.from_dict(
                {
                    **array.document,
                    "shape": array.chunk_shape,
                    "chunk_key_encoding": DEFAULT_KEYS,
                    "attributes": {},
                }
            )
    except Exception as error:  # of zarr, which may lack a data type or a codec
        return f"zarr can't read it: {first_line(error)}"
    data = _last_chunk(array)
    try:
        with QUIET:
            decode_chunk(metadata, data)
    except Exception as error:  # codecs raise what they like
        return f"a chunk of it can't be decoded: {first_line(error)}"
    return None


def _last_chunk(array: ArrayReferences) -> bytes | None:
    """Return the bytes of the last chunk that is stored, None where none is."""
    stored = np.flatnonzero(array.lengths * np.array([bool(url) for url in array.locations]))
    if len(stored):
        at = int(stored[-1])
        return read_range(array.locations[at], int(array.offsets[at]), int(array.lengths[at]))
    return next(iter(array.inlined.values()), None)
