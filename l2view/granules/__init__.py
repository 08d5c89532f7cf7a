"""Where a granule's arrays lie in the source store.

A layout turns a granule's location (its values of the fields `Layout.fields`) and a path
below the granule into the source store's documents, names and keys. It is one of the two
places made to be extended; `groups` is the layout that others write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from l2view.granules.inventory import Inventory, SourceArray
from l2view.stores.hierarchy import JSON

type Location = tuple[object, ...]
"""A granule's values of a layout's fields."""


class UnreadError(LookupError):
    """A granule's document must be read before its keys can be told."""


class Layout(Protocol):
    """What a view asks of the place where granules lie."""

    fields: tuple[str, ...]
    """The fields of ``/meta`` that locate a granule."""

    async def document(self, location: Location, path: str) -> JSON | None:
        """Return the Zarr v3 document of the node at `path` below the granule.

        The path ``""`` is the granule itself, always a group. None where there is no node.
        """
        ...

    async def prefetch(self, nodes: Sequence[tuple[Location, str]]) -> None:
        """Read the documents of several nodes together, so that they are at hand."""
        ...

    async def children(self, location: Location, path: str) -> list[str]:
        """Return the names of the nodes directly below the group at `path`."""
        ...

    def source_key(self, location: Location, path: str) -> str | None:
        """Return the source store's key for a key below the granule that isn't metadata.

        Raises
        ------
        UnreadError
            Where that takes the granule's document, which hasn't been read yet.
        """
        ...

    async def inventory(
        self, locations: Sequence[Location], relevant: frozenset[str]
    ) -> list[Inventory]:
        """Return what the arrays of many granules are, profile by profile.

        Granules that aren't there are in none.

        Parameters
        ----------
        locations
            The granules.
        relevant
            The attributes of arrays by which values are read.
        """
        ...

    def sources(
        self, inventory: Inventory, locations: Sequence[Location], path: str
    ) -> Iterator[SourceArray]:
        """Yield the arrays of the source store with the chunks of the array at `path`.

        Parameters
        ----------
        inventory
            The granules of a profile.
        locations
            Of those granules.
        path
            An array of theirs.
        """
        ...

    async def probes(self, location: Location) -> list[str] | None:
        """Return keys below the granule of chunks that lie in all of its files together.

        ``<path>/c/*`` stands for all chunks of an array. None where the layout doesn't know.
        """
        ...

    def missing(self, location: Location) -> str:
        """Say what is not there, for a granule without a document."""
        ...
