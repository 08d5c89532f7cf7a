"""Indexes that are stored beside the fields.

Each says how many rows it covers; what was appended since is scanned.
"""

from __future__ import annotations

from l2view.hierarchy import OWN, Hierarchy, join
from l2view.meta.chunks import fetch
from l2view.meta.schema import Field
from l2view.meta.zones import Zones, from_bytes

ZONES = join(OWN, "zones")
"""The group with the zone maps, a uint8 array a field."""


class Indexes:
    """The indexes of a collection.

    Parameters
    ----------
    hierarchy
        Its store.
    """

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self._zones: dict[str, Zones | None] = {}

    def __getstate__(self) -> Hierarchy:
        return self.hierarchy

    def __setstate__(self, hierarchy: Hierarchy) -> None:
        self.__init__(hierarchy)  # type: ignore[misc]

    def zones(self, field: Field) -> Zones | None:
        """Return the zone map of a field, None where none is stored."""
        if field.name not in self._zones:
            key = self.hierarchy.key(join(ZONES, field.name, "c/0"))
            said = fetch(self.hierarchy.store, [key])[0]
            self._zones[field.name] = None if said is None else from_bytes(field, bytes(said))
        return self._zones[field.name]
