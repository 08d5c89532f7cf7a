"""Parsers for Zarr hierarchies that keep what Zarr v2 masks.

In Zarr v2 an array's own fill value is what CF calls ``_FillValue``, and there may be none.
VirtualiZarr makes Zarr v3 of it, in which the two are apart and none is 0. So the attribute is
added beside it.
"""

from __future__ import annotations

from typing import Any

import zarr
from obspec_utils.registry import ObjectStoreRegistry
from virtualizarr.manifests import ManifestArray, ManifestGroup, ManifestStore
from virtualizarr.parsers import ZarrParser, ZippedZarrParser
from virtualizarr.parsers.zarr.zarr import construct_manifest_array
from virtualizarr.parsers.zarr.zip import _ZipMetadataStore, parse_zip_index
from zarr.core.sync import sync
from zarr.storage import ObjectStore

from l2view.ingest.manifests import walk
from l2view.stores.hierarchy import Hierarchy, join


class HierarchyParser(ZarrParser):
    """Parses a Zarr hierarchy."""

    def __call__(self, url: str, registry: ObjectStoreRegistry[Any]) -> ManifestStore:
        """Return the hierarchy at a URL as references."""
        manifests = super().__call__(url, registry)
        store, path = registry.resolve(url)
        sync(_add_fill_values(manifests._group, Hierarchy(ObjectStore(store), str(path))))
        return manifests


class ArrayParser(ZarrParser):
    """Parses an array that is no member of a hierarchy, as one in a group, by its folder's name."""

    def __call__(self, url: str, registry: ObjectStoreRegistry[Any]) -> ManifestStore:
        """Return the array at a URL as references."""
        store, path = registry.resolve(url)
        key, objects = str(path), ObjectStore(store)
        array = sync(zarr.api.asynchronous.open_array(store=objects, path=key, mode="r"))
        parsed = sync(construct_manifest_array(array, url.removesuffix(key)))
        name = key.rpartition("/")[2]
        manifests = ManifestGroup({name: parsed})
        sync(_add_fill_values(manifests, Hierarchy(objects, key), name))
        return ManifestStore(manifests, registry=registry)


class ZippedHierarchyParser(ZippedZarrParser):
    """Parses a Zarr hierarchy in a ZIP archive."""

    def __call__(self, url: str, registry: ObjectStoreRegistry[Any]) -> ManifestStore:
        """Return the hierarchy in the archive at a URL as references."""
        manifests = super().__call__(url, registry)
        store, path = registry.resolve(url)
        index = sync(parse_zip_index(store, str(path)))
        metadata = _ZipMetadataStore(store, str(path), index)
        sync(_add_fill_values(manifests._group, Hierarchy(metadata)))
        return manifests


async def _add_fill_values(group: ManifestGroup, hierarchy: Hierarchy, prefix: str = "") -> None:
    """Add the attribute to the arrays of a group, at or below `prefix`, that are of Zarr v2."""
    root = await hierarchy.read("")
    if root is not None and hierarchy.zarr_format == 3:
        return
    arrays = dict(walk(group))
    async for node in hierarchy.walk():
        array = arrays.get(join(prefix, node.path))
        has_fill = node.zarray.get("fill_value") is not None
        if isinstance(array, ManifestArray) and has_fill and node.document:
            fill = node.document["attributes"]["_FillValue"]
            array.metadata.attributes["_FillValue"] = fill
