"""Granules as groups: a field holds the path of each granule's group or array."""

from __future__ import annotations

from collections.abc import Sequence

from l2view.errors import FieldError, unknown
from l2view.hierarchy import JSON, Hierarchy, join, resolve
from l2view.layout import Location, UnreadError

LOCATIONS = ("group_path", "array_location", "path", "id")
"""Fields that are taken as a granule's path, the first that there is."""


def location_field(names: Sequence[str], named: str | None = None) -> str | None:
    """Return the field that holds the paths of granules, None where there is none.

    Raises
    ------
    FieldError
        Where `named` is no field.
    """
    if named is not None:
        if named not in names:
            raise FieldError(unknown("field", named, names))
        return named
    return next((name for name in LOCATIONS if name in names), None)


class GroupsLayout:
    """Each granule is a group or an array of the source store.

    A granule that is one array is shown as a group with that array in it.

    Parameters
    ----------
    hierarchy
        The source store. Paths are taken from its root and can't leave it.
    field
        The field with the paths, None where the collection has no arrays.
    """

    def __init__(self, hierarchy: Hierarchy, field: str | None) -> None:
        self.hierarchy = hierarchy
        self.fields: tuple[str, ...] = () if field is None else (field,)

    async def document(self, location: Location, path: str) -> JSON | None:
        """Return the document of the node at `path` below the granule."""
        base, inside = _resolved(location), resolve(path)
        if base is None or inside is None:
            return None
        top = await self.hierarchy.document(base)
        if top is None or top["node_type"] == "group":
            return await self.hierarchy.document(join(base, inside)) if inside else top
        if not inside:
            return {"zarr_format": 3, "node_type": "group", "attributes": {}}
        return top if inside == _name(base) else None

    async def prefetch(self, nodes: Sequence[tuple[Location, str]]) -> None:
        """Read the documents of several nodes together."""
        bases = [(_resolved(location), path) for location, path in nodes]
        await self.hierarchy.prefetch([join(base, path) for base, path in bases if base])

    async def children(self, location: Location, path: str) -> list[str]:
        """Return the names directly below the group at `path`."""
        base, inside = _resolved(location), resolve(path)
        if base is None or inside is None:
            return []
        top = await self.hierarchy.document(base)
        if top is None:
            return []
        if top["node_type"] == "array":
            return [_name(base)] if not inside else []
        return await self.hierarchy.children(join(base, inside))

    def source_key(self, location: Location, path: str) -> str | None:
        """Return the source store's key for the key `path` below the granule."""
        base, inside = _resolved(location), resolve(path)
        if base is None or not inside:
            return None
        name, _, rest = inside.partition("/")
        # Only a path that starts with the granule's own name may be that of an array.
        if name == _name(base):
            top = self.hierarchy.remembered(base)
            if top is None:
                raise UnreadError(base)
            if top["node_type"] == "array":
                return self.hierarchy.key(join(base, rest))
        return self.hierarchy.key(join(base, inside))

    async def probes(self, location: Location) -> list[str] | None:
        """Return None: groups don't say."""
        return None

    def missing(self, location: Location) -> str:
        """Say what is not in the store."""
        if not location:
            names = ", ".join(LOCATIONS)
            return f"meta has no field with paths ({names}); name another with location="
        path = location[0]
        if path is None:
            return f'its field "{self.fields[0]}" is NULL'
        if _resolved(location) is None:
            return f"{path!r} is not a path inside the store"
        return f"there is no group or array at {path!r}"


def _resolved(location: Location) -> str | None:
    if not location or not isinstance(location[0], str):
        return None
    return resolve(location[0]) or None


def _name(path: str) -> str:
    return path.rpartition("/")[2]
