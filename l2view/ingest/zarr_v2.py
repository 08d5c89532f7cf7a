"""Parsers for Zarr hierarchies that keep what Zarr v2 masks.

In Zarr v2 an array's own fill value is what CF calls ``_FillValue``, and there may be none.
VirtualiZarr makes Zarr v3 of it, in which the two are apart and none is 0. So the attribute is
added beside it.
"""

from __future__ import annotations

from typing import Any

import zarr
from obspec_utils.protocols import ReadableFile
from obspec_utils.registry import ObjectStoreRegistry
from virtualizarr.parsers import ZarrParser, ZippedZarrParser
from virtualizarr.parsers.zarr.zarr import construct_manifest_array
from virtualizarr.parsers.zarr.zip import _ZipMetadataStore, parse_zip_index
from zarr.core.sync import sync
from zarr.storage import ObjectStore

from l2view.errors import IngestError
from l2view.geolocation.coordinates import basename
from l2view.ingest.manifests import Manifests, chunk_grid
from l2view.stores.hierarchy import Hierarchy, join


def parse_hierarchy(
    url: str, reader: ReadableFile | None, stores: ObjectStoreRegistry[Any], threshold: int
) -> Manifests:
    """Return a Zarr hierarchy as references (see `l2view.ingest.formats.CheckedParser`)."""
    store, path = stores.resolve(url)
    return _parse(ZarrParser, Hierarchy(ObjectStore(store), str(path)), url, stores)


def parse_archive(
    url: str, reader: ReadableFile | None, stores: ObjectStoreRegistry[Any], threshold: int
) -> Manifests:
    """Return a Zarr hierarchy in a ZIP archive as references."""
    store, path = stores.resolve(url)
    index = sync(parse_zip_index(store, str(path)))
    hierarchy = Hierarchy(_ZipMetadataStore(store, str(path), index))
    return _parse(ZippedZarrParser, hierarchy, url, stores)


def _parse(
    parser: Any, hierarchy: Hierarchy, url: str, stores: ObjectStoreRegistry[Any]
) -> Manifests:
    omitted = sync(_sparse_arrays(hierarchy))
    store = parser(skip_variables=set(map(basename, omitted)))(url, stores)
    manifests = Manifests(omitted=omitted).add(store._group)
    sync(_add_fill_values(manifests, hierarchy))
    return manifests


async def _sparse_arrays(hierarchy: Hierarchy) -> dict[str, str]:
    """Return why arrays have too many chunks, and those that are skipped with them by name."""
    reasons: dict[str, str] = {}
    paths = []
    async for node in hierarchy.walk():
        if node.is_array and node.document is not None:
            paths.append(node.path)
            try:
                chunk_grid(node.document)
            except IngestError as error:
                reasons[node.path] = str(error)
            except KeyError:  # another kind of grid
                continue
    names = set(map(basename, reasons))
    skipped = [path for path in paths if basename(path) in names]
    return {path: reasons.get(path, "an array of its name is left out") for path in skipped}


def parse_array(
    url: str, reader: ReadableFile | None, stores: ObjectStoreRegistry[Any], threshold: int
) -> Manifests:
    """Return an array that is no member of a hierarchy, as one in a group, by its folder's name."""
    store, path = stores.resolve(url)
    key, objects = str(path), ObjectStore(store)
    array = sync(zarr.api.asynchronous.open_array(store=objects, path=key, mode="r"))
    name = basename(key)
    manifests = Manifests({name: sync(construct_manifest_array(array, url.removesuffix(key)))})
    sync(_add_fill_values(manifests, Hierarchy(objects, key), name))
    return manifests


async def _add_fill_values(manifests: Manifests, hierarchy: Hierarchy, prefix: str = "") -> None:
    """Add the attribute to the arrays at or below `prefix` that are of Zarr v2."""
    root = await hierarchy.read("")
    if root is not None and hierarchy.zarr_format == 3:
        return
    async for node in hierarchy.walk():
        array = manifests.arrays.get(join(prefix, node.path))
        has_fill = node.zarray.get("fill_value") is not None
        if array is not None and has_fill and node.document:
            fill = node.document["attributes"]["_FillValue"]
            array.metadata.attributes["_FillValue"] = fill
