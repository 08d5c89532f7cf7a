"""Where a granule's arrays lie in the source store (see ``DESIGN.md`` beside this file).

A layout turns a granule's location, its values of the fields `Layout.fields`, and a path below
the granule into the source store's documents, names and keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from l2view.granules.table import GranuleTable, SourceArray
from l2view.stores.hierarchy import JSON

type Location = tuple[object, ...]  # a granule's values of a layout's fields


class UnreadError(LookupError):
    """A granule's document must be read before its keys can be translated."""


class Layout(Protocol):
    """How a view finds granules in the source store."""

    fields: tuple[str, ...]
    """The fields of ``/meta`` that locate a granule."""

    async def document(self, location: Location, path: str) -> JSON | None:
        """Return the Zarr v3 document of the node at `path`; ``""`` is the granule, a group."""

    async def prefetch(self, nodes: Sequence[tuple[Location, str]]) -> None:
        """Read the documents of several nodes together, so that they are at hand."""

    async def children(self, location: Location, path: str) -> list[str]:
        """Return the names of the nodes directly below the group at `path`."""

    def source_key(self, location: Location, path: str) -> str | None:
        """Translate a chunk's key below the granule to the source store's key.

        An `UnreadError` says that this takes the granule's document, which isn't read yet.
        """

    async def tables(
        self, locations: Sequence[Location], relevant: frozenset[str]
    ) -> list[GranuleTable]:
        """Describe the arrays of many granules, profile by profile.

        A granule that isn't in the store is in no table. `relevant` names the attributes of
        arrays by which values are read.
        """

    def sources(self, table: GranuleTable, path: str) -> AsyncIterator[SourceArray]:
        """Yield the source store's arrays with the chunks of a table's arrays at `path`."""

    async def probes(self, location: Location) -> list[str] | None:
        """Return keys below the granule of chunks that lie in all of its files together.

        ``<path>/c/*`` stands for all chunks of an array. None where the layout doesn't know.
        """

    def missing(self, location: Location) -> str:
        """Explain, for a message, why a granule has no document."""
