"""Granules as groups: the layout of zarr-datafusion-search, for those who want it.

Not good for many granules: Icechunk writes every node of the hierarchy into every snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import icechunk
import zarr
from zarr.core.sync import sync

from l2view.granules.profile import GRANULES, encode_floats
from l2view.granules.references import GranuleReferences, put_references
from l2view.meta.columns import Value
from l2view.stores.hierarchy import JSON, group_document, join, parents, put_documents

FLOAT_NAMES = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}
"""Zarr's names of the floats that JSON lacks."""


def granule_path(name: str) -> str:
    """Return the path of the group of the granule with the id `name`, unique to the id.

    Examples
    --------
    >>> granule_path("S2A/31UDQ"), granule_path("..")
    ('granules/S2A%2F31UDQ', 'granules/%2E.')
    """
    text = quote(name, safe=" :,;@&=+$!()[]'")
    if text.startswith((".", "__")):  # which Zarr keeps for itself
        text = f"%{ord(text[0]):02X}{text[1:]}"
    return join(GRANULES, text)


def write_groups(
    store: icechunk.IcechunkStore, granules: Sequence[tuple[str, GranuleReferences]]
) -> list[dict[str, Value]]:
    """Write granules as groups, in place of those with their ids (see `StorageLayout.write`)."""
    root = zarr.open_group(store, mode="a")
    root.require_group(GRANULES)
    paths = [granule_path(name) for name, _ in granules]
    for path, (_, granule) in zip(paths, granules, strict=True):
        if path in root:
            sync(store.delete_dir(path))
        implied = {group for array in granule.arrays for group in parents(array.path)}
        groups: dict[str, JSON] = {inner: {} for inner in ("", *implied)}
        groups |= granule.attributes
        documents = {join(path, inner): group_document(own) for inner, own in groups.items()}
        documents |= {join(path, array.path): array.document for array in granule.arrays}
        put_documents(store, {node: _plain_json(document) for node, document in documents.items()})
        for array in granule.arrays:
            put_references(store, join(path, array.path), array, granule.checksums)
    return [{"group_path": path} for path in paths]


def _plain_json(document: JSON) -> JSON:
    """Return a document whose attributes every reader of JSON takes.

    A float that JSON lacks becomes its name, but for what masks an array: NaN is masked anyway.
    """
    attributes = {
        name: value
        for name, value in document["attributes"].items()
        if not (name in ("missing_value", "_FillValue") and value != value)
    }
    return {**document, "attributes": encode_floats(attributes, FLOAT_NAMES.__getitem__)}
