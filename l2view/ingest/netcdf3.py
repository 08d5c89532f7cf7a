"""netCDF-3 files, whose record variables lie record by record (netCDF Classic Format).

VirtualiZarr makes each record a chunk. Records of one variable that follow each other are chunks
together here, and many small ones between those of other variables are copied.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from obspec_utils.protocols import ReadableFile
from obspec_utils.registry import ObjectStoreRegistry
from virtualizarr.manifests import ManifestArray, ManifestGroup, ManifestStore
from virtualizarr.manifests.utils import copy_and_replace_metadata
from virtualizarr.parsers import netcdf3

from l2view.ingest.manifests import Chunks, copied_array

MANY = 100
"""The records up to which each may be a chunk, however small."""

SMALL = 2**16
"""The bytes of a record from which on it may be a chunk, however many there are."""

LARGEST = 2**25
"""The most bytes of a chunk of several records."""

SECTION = 2**26
"""The most bytes of a file that are read for the records among them."""


def parse_netcdf3(
    url: str, reader: ReadableFile, stores: ObjectStoreRegistry[Any], threshold: int
) -> tuple[ManifestStore, dict[str, str]]:
    """Return a netCDF-3 file as references (see `l2view.ingest.formats.CheckedParser`)."""
    omitted: dict[str, str] = {}
    reader.seek(0)
    header = netcdf3._parse_header(reader)
    if header.numrecs == netcdf3._STREAMING:
        header.numrecs = netcdf3._resolve_streaming_numrecs(header, reader.seek(0, 2))
    arrays = {v.name: _join_adjacent(_refer(v, header, url)) for v in header.variables}
    scattered = [
        name
        for name, array in arrays.items()
        if _has_records(array)
        and _length(array) < SMALL
        and array.shape[0] * _length(array) <= threshold
    ]
    if scattered:
        offsets = [arrays[name].manifest._offsets.ravel() for name in scattered]
        start = int(min(at[0] for at in offsets))
        stop = int(max(at[-1] for at in offsets)) + max(_length(arrays[n]) for n in scattered)
        if stop - start <= SECTION:
            reader.seek(start)
            section = reader.read(stop - start)
            for name in scattered:
                array = arrays.pop(name)
                last = int(array.manifest._offsets.ravel()[-1]) - start
                if last + _length(array) <= len(section):
                    arrays[name] = _copy_records(array, section, start)
                else:
                    omitted[name] = "the file ends before its last record"
    parsed = ManifestGroup(arrays, attributes=header.attributes)
    return ManifestStore(parsed, registry=stores), omitted


def _refer(variable: Any, header: Any, url: str) -> ManifestArray:
    """Return a variable as references, whose ``_FillValue`` may be one that its type lacks."""
    attributes = dict(variable.attributes)
    fill_value = attributes.pop("_FillValue", None)
    array = netcdf3._build_manifest_array(replace(variable, attributes=attributes), header, url)
    if fill_value is not None:
        array.metadata.attributes["_FillValue"] = fill_value
    return array


def _has_records(array: ManifestArray) -> bool:
    """Return whether each of many chunks is a record."""
    return bool(array.shape) and array.manifest._offsets.size == array.shape[0] > MANY


def _length(array: ManifestArray) -> int:
    return int(array.manifest._lengths.ravel()[0])


def _stride(array: ManifestArray) -> int:
    first, second = array.manifest._offsets.ravel()[:2].tolist()
    return int(second - first)


def _join_adjacent(array: ManifestArray) -> ManifestArray:
    """Return an array whose records follow each other with as many in a chunk as divide them."""
    if not _has_records(array) or _stride(array) != (length := _length(array)):
        return array
    records = array.shape[0]
    most = max(LARGEST // length, 1)
    step = next(n for n in range(min(most, records), 0, -1) if records % n == 0)
    if step * length < SMALL:
        step = records
    manifest = array.manifest
    lengths = manifest._lengths[::step] * np.uint64(step)
    joined = Chunks(manifest._paths[::step], manifest._offsets[::step], lengths)
    return ManifestArray(_with_records(array, step), joined.to_manifest())


def _copy_records(array: ManifestArray, section: bytes, start: int) -> ManifestArray:
    """Return an array with its records as one chunk, of a section of the file from `start` on."""
    records, begin = array.shape[0], int(array.manifest._offsets.ravel()[0]) - start
    strides = (_stride(array), 1)
    data = np.ndarray((records, _length(array)), "u1", section, begin, strides).tobytes()
    return copied_array(_with_records(array, records), data)


def _with_records(array: ManifestArray, records: int) -> Any:
    chunks = [records, *array.metadata.chunks[1:]]
    return copy_and_replace_metadata(array.metadata, new_chunks=chunks)
