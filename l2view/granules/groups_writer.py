"""Granules as groups: the layout of zarr-datafusion-search, for those who want it.

Not good for many granules: Icechunk writes every node of the hierarchy into every snapshot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import icechunk
import zarr
from zarr.core.sync import sync

from l2view.granules.nodes import put_chunks, put_documents
from l2view.granules.profile import GRANULES
from l2view.granules.references import GranuleReferences
from l2view.meta.columns import Kind, Value
from l2view.stores.hierarchy import JSON, join

KINDS: dict[str, Kind] = {"group_path": "string"}
"""The field by which a granule is found."""


def path_of(name: str) -> str:
    """Return the path of the group of the granule with the id `name`, another for each id.

    Examples
    --------
    >>> path_of("S2A/31UDQ"), path_of("..")
    ('granules/S2A%2F31UDQ', 'granules/%2E.')
    """
    text = quote(name, safe=" :,;@&=+$!()[]'")
    if text.startswith((".", "__")):  # which Zarr keeps for itself
        text = f"%{ord(text[0]):02X}{text[1:]}"
    return join(GRANULES, text)


def group(
    store: icechunk.IcechunkStore, granules: Sequence[tuple[str, GranuleReferences]]
) -> list[dict[str, Value]]:
    """Write granules, each as a group of its own, in the place of one with the same id.

    Parameters
    ----------
    store
        A writable session's store.
    granules
        Their ids and references.

    Returns
    -------
    list
        The field by which each is found, in their order.
    """
    root = zarr.open_group(store, mode="a")
    root.require_group(GRANULES)
    found: list[dict[str, Value]] = []
    for name, granule in granules:
        path = path_of(name)
        if path in root:
            sync(store.delete_dir(path))
        documents: dict[str, JSON] = {
            join(path, inner): {"zarr_format": 3, "node_type": "group", "attributes": attributes}
            for inner, attributes in _groups(granule).items()
        }
        documents |= {join(path, array.path): array.document for array in granule.arrays}
        put_documents(store, {path: _written(document) for path, document in documents.items()})
        for array in granule.arrays:
            put_chunks(store, join(path, array.path), array, granule.checksums)
        found.append({"group_path": path})
    return found


def _written(document: JSON) -> JSON:
    """Return a document whose attributes every reader of JSON takes.

    A float that JSON lacks becomes its name, but for what masks an array: NaN is masked anyway.
    """
    kept = {
        name: value
        for name, value in document["attributes"].items()
        if not (name in ("missing_value", "_FillValue") and value != value)
    }
    return {**document, "attributes": _named(kept)}


def _named(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"inf": "Infinity", "-inf": "-Infinity"}.get(str(value), "NaN")
    if isinstance(value, dict):
        return {name: _named(one) for name, one in value.items()}
    return [_named(one) for one in value] if isinstance(value, list) else value


def _groups(granule: GranuleReferences) -> dict[str, JSON]:
    """Return the attributes of all groups of a granule, by path."""
    found: dict[str, JSON] = {"": {}}
    for array in granule.arrays:
        parts = array.path.split("/")[:-1]
        found |= {"/".join(parts[:end]): {} for end in range(1, len(parts) + 1)}
    return found | dict(granule.attributes)
