"""The Zarr convention that a collection of l2view's follows (docs/store-format.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from l2view.errors import StoreError

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
