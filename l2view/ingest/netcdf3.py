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
from virtualizarr.manifests import ManifestArray
from virtualizarr.manifests.utils import copy_and_replace_metadata
from virtualizarr.parsers import netcdf3

from l2view.ingest.manifests import Chunks, Manifests, copied_array

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
) -> Manifests:
    """Return a netCDF-3 file as references (see `l2view.ingest.formats.CheckedParser`)."""
    omitted: dict[str, str] = {}
    reader.seek(0)
    header = netcdf3._parse_header(reader)
    if header.numrecs == netcdf3._STREAMING:
        header.numrecs = netcdf3._resolve_streaming_numrecs(header, reader.seek(0, 2))
    arrays = {v.name: _refer(v, header, url) for v in header.variables}
    records, stride = header.numrecs, header.recsize
    scattered: dict[str, tuple[int, int]] = {}  # where records begin, and their bytes
    for variable in header.variables if records > MANY else ():
        name, nbytes = variable.name, netcdf3._record_nbytes(variable)
        if variable.is_record and stride == nbytes:
            arrays[name] = _join_adjacent(arrays[name], nbytes)
        elif variable.is_record and nbytes < SMALL and records * nbytes <= threshold:
            scattered[name] = variable.begin, nbytes
    if scattered:
        start = min(begin for begin, _ in scattered.values())
        ends = {n: at + nbytes + (records - 1) * stride for n, (at, nbytes) in scattered.items()}
        if max(ends.values()) - start <= SECTION:
            reader.seek(start)
            section = reader.read(max(ends.values()) - start)
            for name, (begin, nbytes) in scattered.items():
                metadata = _with_records(arrays.pop(name), records)
                if ends[name] - start <= len(section):
                    steps = stride, 1
                    data = np.ndarray((records, nbytes), "u1", section, begin - start, steps)
                    arrays[name] = copied_array(metadata, data.tobytes())
                else:
                    omitted[name] = "the file ends before its last record"
    return Manifests(arrays, {"": header.attributes}, omitted)


def _refer(variable: Any, header: Any, url: str) -> ManifestArray:
    """Return a variable as references, whose ``_FillValue`` may be one that its type lacks."""
    attributes = dict(variable.attributes)
    fill_value = attributes.pop("_FillValue", None)
    array = netcdf3._build_manifest_array(replace(variable, attributes=attributes), header, url)
    if fill_value is not None:
        array.metadata.attributes["_FillValue"] = fill_value
    return array


def _join_adjacent(array: ManifestArray, nbytes: int) -> ManifestArray:
    """Return an array whose records follow each other with as many in a chunk as divide them."""
    records = array.shape[0]
    most = max(LARGEST // nbytes, 1)
    step = next(n for n in range(min(most, records), 0, -1) if records % n == 0)
    if step * nbytes < SMALL:
        step = records
    manifest = array.manifest
    lengths = manifest._lengths[::step] * np.uint64(step)
    joined = Chunks(manifest._paths[::step], manifest._offsets[::step], lengths)
    return ManifestArray(_with_records(array, step), joined.to_manifest())


def _with_records(array: ManifestArray, records: int) -> Any:
    chunks = [records, *array.metadata.chunks[1:]]
    return copy_and_replace_metadata(array.metadata, new_chunks=chunks)
