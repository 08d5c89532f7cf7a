"""The Zarr convention that a collection of l2view's follows (docs/store-format.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from l2view.errors import StoreError

NAME = "l2view"
"""The root's attribute that says which version of the format a collection has."""

VERSION = 1
"""Of the format."""

CONVENTION: dict[str, str] = {
    "uuid": "61c5f41c-b60e-4742-93be-2c370005bc1d",
    "schema_url": "https://l2view.readthedocs.io/store-format/v1/schema.json",
    "spec_url": "https://l2view.readthedocs.io/store-format/",
    "name": NAME,
    "description": "Granules of many shapes, packed by product version, and a table of them",
}
"""Its entry in the root's ``zarr_conventions``."""


def declared(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a root that says which convention it follows."""
    named = [one for one in attributes.get("zarr_conventions", ()) if one != CONVENTION]
    return {NAME: {"version": VERSION}, "zarr_conventions": [*named, CONVENTION]}


def check(attributes: Mapping[str, Any], label: str) -> None:
    """Raise where a collection's root has another version of the format.

    Raises
    ------
    StoreError
        Naming both versions.
    """
    said = attributes.get(NAME)
    version = said.get("version") if isinstance(said, Mapping) else None
    if version not in (None, VERSION):
        raise StoreError(
            f"{label} has version {version} of the format, and this l2view reads {VERSION}; "
            "a newer l2view may read it"
        )
