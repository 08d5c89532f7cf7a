"""The layouts of granules' arrays: how each is detected, read, written and declared.

A collection of l2view's follows a Zarr convention (docs/store-format.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import icechunk
from zarr.core.sync import sync

from l2view.errors import StoreError
from l2view.granules import Layout
from l2view.granules.groups import GroupsLayout
from l2view.granules.groups_writer import write_groups
from l2view.granules.packed import PackedLayout
from l2view.granules.packed_writer import write_packed
from l2view.granules.references import GranuleReferences
from l2view.meta.columns import Kind, Value
from l2view.stores.hierarchy import Hierarchy

NAME = "l2view"  # the root's attribute with the version of the format

VERSION = 1

CONVENTION: dict[str, str] = {
    "uuid": "61c5f41c-b60e-4742-93be-2c370005bc1d",
    "schema_url": "https://l2view.readthedocs.io/store-format/v1/schema.json",
    "spec_url": "https://l2view.readthedocs.io/store-format/",
    "name": NAME,
    "description": "Granules of many shapes, packed by product version, and a table of them",
}
"""Its entry in the root's ``zarr_conventions``."""

type StorageName = Literal["packed", "groups"]  # the form of granules' arrays in a collection


@dataclass(frozen=True)
class StorageLayout:
    """One form of granules' arrays in a collection.

    `read` makes a `Layout` of a store, the names of its fields, and the field that the caller
    names. `write` writes granules, by id and references, and returns the locating fields of each.
    """

    kinds: Mapping[str, Kind]  # of the fields that locate a granule
    read: Callable[[Hierarchy, Sequence[str], str | None], Layout]
    write: Callable[
        [icechunk.IcechunkStore, Sequence[tuple[str, GranuleReferences]]], list[dict[str, Value]]
    ]


LAYOUTS: Mapping[StorageName, StorageLayout] = {
    "packed": StorageLayout(
        {"profile": "string", "slot": "int"},
        lambda hierarchy, fields, location: PackedLayout(hierarchy),
        write_packed,
    ),
    "groups": StorageLayout({"group_path": "string"}, GroupsLayout.of, write_groups),
}

LOCATING_FIELDS = frozenset(name for layout in LAYOUTS.values() for name in layout.kinds)
"""The fields that are written anew for each collection."""


def detect_storage(fields: Iterable[str]) -> StorageName | None:
    """Return the storage whose locating fields are all there, None without any."""
    names = set(fields)
    return next((name for name, layout in LAYOUTS.items() if layout.kinds.keys() <= names), None)


def open_layout(
    hierarchy: Hierarchy, fields: Sequence[str], location: str | None, label: str
) -> Layout:
    """Return the layout of a collection with these `fields`.

    Others' collections are groups, by one of several fields (see `GroupsLayout.of`). A
    `location` is the field with their paths; `label` names the store in errors. A `FieldError`
    says that it is no field, a `StoreError` that the format has another version.
    """
    storage = (detect_storage(fields) if location is None else None) or "groups"
    if storage == "packed":
        root = sync(hierarchy.read("")) or {}
        check_version(root.get("attributes") or {}, label)
    return LAYOUTS[storage].read(hierarchy, fields, location)


def declare_convention(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes by which a root with `attributes` names the convention."""
    others = [entry for entry in attributes.get("zarr_conventions", ()) if entry != CONVENTION]
    return {NAME: {"version": VERSION}, "zarr_conventions": [*others, CONVENTION]}


def check_version(attributes: Mapping[str, Any], label: str) -> None:
    """Raise a `StoreError` where a collection's root has another version of the format."""
    declaration = attributes.get(NAME)
    version = declaration.get("version") if isinstance(declaration, Mapping) else None
    if version not in (None, VERSION):
        raise StoreError(
            f"{label} has version {version} of the format, and this l2view reads {VERSION}; "
            "a newer l2view may read it"
        )
