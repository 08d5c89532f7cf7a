"""One granule's files, parsed: its references and its row of metadata, or why there are none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import zarr
from obspec_utils.readers import BlockStoreReader
from virtualizarr.manifests import ManifestStore
from xarray.backends.zarr import FillValueCoder
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from l2view.errors import IngestError, L2ViewError
from l2view.hierarchy import JSON, join
from l2view.ingest.files import (
    FileInfo,
    first_bytes,
    head,
    is_zarr,
    key_of,
    registry,
    root_of,
    store_of,
    unquoted,
)
from l2view.ingest.formats import HDF5, TIFF, ZARR, Format, Parser, format_of
from l2view.ingest.harvest import Harvester
from l2view.ingest.harvest.attributes import harvest_attributes, instant
from l2view.ingest.harvest.footprint import harvest_footprint
from l2view.ingest.references import ArrayReferences, GranuleReferences, of_manifest
from l2view.ingest.writer import Granule
from l2view.stores import without_credentials


@dataclass(frozen=True)
class Entry:
    """A granule that is to be parsed.

    Attributes
    ----------
    id
        Its id.
    assets
        Its files by name, ``""`` for that of a granule which is one file.
    fields
        What is known of it already, which wins over what its files say.
    """

    id: str
    assets: Mapping[str, str]
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The first of its files."""
        return next(iter(self.assets.values()), "")


@dataclass(frozen=True)
class Failure:
    """A granule that is left out.

    Attributes
    ----------
    id
        Its id.
    url
        Its file.
    reason
        Why.
    """

    id: str
    url: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """How granules are read.

    Attributes
    ----------
    parser
        A VirtualiZarr parser for all files, None to tell each by its content.
    harvest
        The caller's own harvester, which wins over the others.
    collection
        The field ``collection``.
    defaults
        Fields of granules that don't say.
    """

    parser: Parser | None = None
    harvest: Harvester | None = None
    collection: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)


def entry_of_file(url: str) -> Entry:
    """Return the entry of a granule that is one file, whose id is the file's name."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    stem = name.removesuffix(".dmrpp")
    return Entry(PurePosixPath(stem).stem or stem, {"": url})


def parse(entry: Entry, reading: Reading) -> Granule | Failure:
    """Return the granule, or why it is left out; no error of one file stops the others."""
    try:
        return _parse(entry, reading)
    except L2ViewError as error:
        return Failure(entry.id, entry.url, str(error))
    except Exception as error:  # parsers and codecs have errors of their own
        return Failure(entry.id, entry.url, _said(error))


def _said(error: Exception) -> str:
    """Return what an error says, in one line and without credentials."""
    if isinstance(error, L2ViewError):
        return str(error)
    lines = str(error).strip().splitlines()
    said = without_credentials(lines[0]) if lines else "no reason given"
    return f"{type(error).__name__}: {said}"


def _parse(entry: Entry, reading: Reading) -> Granule:
    arrays: list[ArrayReferences] = []
    attributes: dict[str, JSON] = {}
    checksums: dict[str, str] = {}
    row: dict[str, Any] = {}
    for asset, url in entry.assets.items():
        try:
            opened = _opened(asset, url, reading)
        except Exception as error:
            if not asset:
                raise
            raise IngestError(f"its asset {asset} ({url}): {_said(error)}") from error
        store, file, form, found, said = opened
        arrays.extend(_below(asset, array) for array in found)
        attributes.update({join(asset, path): value for path, value in said.items()})
        if file is not None and file.etag is not None:
            checksums[url] = _checksum(file)
        if not row and not {"datetime", "bbox"} <= entry.fields.keys():
            row = _harvested(store, url, form)
        if reading.harvest is not None:
            row.update(reading.harvest(zarr.open_group(store, mode="r"), url))
    references = GranuleReferences(tuple(arrays), {"": {}, **attributes}, checksums)
    row = {"href": entry.url, "collection": reading.collection, "id": entry.id, **row}
    row.update(entry.fields)
    row.update({name: v for name, v in reading.defaults.items() if row.get(name) is None})
    if isinstance(row.get("datetime"), str):
        row["datetime"] = instant(row["datetime"])
    _require(row, references)
    return Granule({k: v for k, v in row.items() if v is not None}, references)


def _opened(
    asset: str, url: str, reading: Reading
) -> tuple[ManifestStore, FileInfo | None, Format | None, list[ArrayReferences], JSON]:
    """Parse one file."""
    file = None if is_folder(url) else head(url)
    form = ZARR if file is None else None
    if reading.parser is None and file is not None:
        form = format_of(first_bytes(file))
    if set("#?") & set(key_of(url)):
        raise IngestError("its name has # or ? in it, which VirtualiZarr's parsers can't take")
    parser = reading.parser or (form or ZARR).make()
    store = parser(unquoted(url), registry(url))
    found, said = of_manifest(store._group)
    found = [_with_quotes(array, url) for array in found]
    if form is HDF5:
        found.extend(empty_arrays(url, {array.path for array in found}))
    if form is TIFF:
        found, said = flattened(found, said, alone=bool(asset))
    return store, file, form, found, said


def _with_quotes(array: ArrayReferences, url: str) -> ArrayReferences:
    """Return an array whose references name its file as Icechunk wants it, percent-encoded."""
    raw, root = unquoted(url), root_of(url)
    if raw == url:
        return array
    places = [
        url
        if place == raw
        else f"{root}/{quote(place[len(root) + 1 :])}"
        if place.startswith(f"{raw}/")
        else place
        for place in array.locations
    ]
    return ArrayReferences(
        array.path, array.document, places, array.offsets, array.lengths, array.inlined
    )


def is_folder(url: str) -> bool:
    """Return whether a granule is a Zarr hierarchy rather than a file."""
    return not PurePosixPath(urlsplit(url).path).suffix.lower().endswith("zip") and is_zarr(url)


def _checksum(file: FileInfo) -> str:
    # Icechunk takes one pair of quotes off, and stores compare what is within.
    return f'"{file.etag}"'


def _harvested(store: ManifestStore, url: str, form: Format | None) -> dict[str, Any]:
    group = zarr.open_group(store, mode="r")
    return {**harvest_attributes(group, url), **harvest_footprint(group, url)}


def _require(row: Mapping[str, Any], references: GranuleReferences) -> None:
    """Raise where a granule doesn't say when or where it was taken.

    Raises
    ------
    IngestError
        Saying what is missing. A granule with nothing in it needs no place.
    """
    if row.get("datetime") is None and row.get("start_datetime") is None:
        raise IngestError("it doesn't say when it was taken; name the field datetime in harvest=")
    empty = all(0 in array.shape for array in references.arrays)
    if row.get("bbox") is None and not empty:
        raise IngestError("it doesn't say where it was taken; name the field bbox in harvest=")


def _below(asset: str, array: ArrayReferences) -> ArrayReferences:
    if not asset:
        return array
    path = join(asset, array.path)
    return ArrayReferences(
        path, array.document, array.locations, array.offsets, array.lengths, array.inlined
    )


def flattened(
    arrays: list[ArrayReferences], attributes: JSON, *, alone: bool = False
) -> tuple[list[ArrayReferences], JSON]:
    """Return a TIFF's images as arrays ``0``, ``1``, … of one group, the full one first.

    Its parser makes a group of each, with an array of the same name. With `alone`, a single
    image is the asset's own array.
    """
    if alone and len(arrays) == 1:
        one = arrays[0]
        kept = (one.document, one.locations, one.offsets, one.lengths, one.inlined)
        return [ArrayReferences("", *kept)], {}
    renamed = []
    for array in arrays:
        group, _, name = array.path.rpartition("/")
        path = name if name == group else array.path
        renamed.append(
            ArrayReferences(
                path, array.document, array.locations, array.offsets, array.lengths, array.inlined
            )
        )
    held = {array.path for array in renamed}
    return renamed, {path: said for path, said in attributes.items() if path not in held}


def empty_arrays(url: str, known: set[str]) -> Iterator[ArrayReferences]:
    """Yield the datasets without values of an HDF5 file, which its parser leaves out.

    Parameters
    ----------
    url
        The file.
    known
        The paths of the arrays that were parsed.
    """
    import h5py

    reader = BlockStoreReader(store_of(root_of(url)), key_of(url))
    found: list[tuple[str, tuple[int, ...], Any, JSON]] = []

    def visit(path: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and path not in known and 0 in (node.shape or ()):
            name = node.attrs.get("NAME", b"")
            text = name.decode() if isinstance(name, bytes) else str(name)
            if not text.startswith("This is a netCDF dimension but not a netCDF variable"):
                found.append((path, node.shape, node.dtype, dict(node.attrs)))

    with h5py.File(reader, mode="r") as file:
        file.visititems(visit)
    for path, shape, dtype, attributes in found:
        if dtype.kind not in "biuf":
            raise IngestError(f"the array {path} without values is {dtype}, which can't be kept")
        yield _empty(path, shape, dtype, attributes)


HDF5_OWN = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid", "_NCProperties")
"""Attributes by which HDF5 and netCDF-4 keep dimensions."""


def _empty(path: str, shape: tuple[int, ...], dtype: Any, attributes: JSON) -> ArrayReferences:
    kept = {
        name: _json(value)
        for name, value in attributes.items()
        if name not in HDF5_OWN and not name.startswith("_Netcdf4")
    }
    if "_FillValue" in kept:
        kept["_FillValue"] = FillValueCoder.encode(kept["_FillValue"], np.dtype(dtype))
    store = MemoryStore()
    names = [path.rpartition("/")[2]] if len(shape) == 1 else None
    array = zarr.create_array(
        store,
        shape=shape,
        chunks=tuple(max(length, 1) for length in shape),
        dtype=dtype.newbyteorder("="),
        compressors=None,
        dimension_names=names,
        attributes=kept,
    )
    buffers = array.metadata.to_buffer_dict(default_buffer_prototype())
    document = json.loads(buffers["zarr.json"].to_bytes())
    count = int(np.prod([-(-n // max(n, 1)) for n in shape], dtype=np.int64))
    nothing = np.zeros(count, dtype=np.uint64)
    return ArrayReferences(path, document, [""] * count, nothing, nothing)


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray):
        parts = [_json(part) for part in value.tolist()]
        return parts[0] if len(parts) == 1 else parts
    return value.item() if isinstance(value, np.generic) else value
