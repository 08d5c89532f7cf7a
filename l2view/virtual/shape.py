"""The shapes that a view can have: what a `ViewStore` asks of them.

A shape composes the documents of a hierarchy, and knows of each chunk where it comes from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from l2view.stores.composed import ChunkSource
from l2view.stores.hierarchy import JSON
from l2view.virtual.tree import Tree

METADATA = "zarr.json"
"""The name of a node's document."""


class Shape(Protocol):
    """A hierarchy made of granules."""

    @property
    def tree(self) -> Tree:
        """The granules as they are."""
        ...

    @property
    def description(self) -> JSON:
        """What the root's attribute ``l2view`` says."""
        ...

    @property
    def root(self) -> JSON:
        """The document of the root group."""
        ...

    @property
    def members(self) -> int:
        """The number of nodes directly below the root."""
        ...

    async def load(self, path: str) -> None:
        """Read what it takes to tell of the node or chunk at `path`."""
        ...

    async def document(self, path: str) -> JSON | None:
        """Return the Zarr v3 document of the node at `path`, None where there is none."""
        ...

    async def documents(self, paths: Sequence[str]) -> list[JSON | None]:
        """Return the documents of the nodes at `paths`, reading them together."""
        ...

    async def names(self, path: str) -> list[str]:
        """Return the names of the nodes directly below the group at `path`."""
        ...

    def find(self, key: str) -> ChunkSource:
        """Return where the chunk at `key` comes from, None where it can't be one."""
        ...

    def chunk_keys(self, path: str) -> AsyncIterator[str]:
        """Yield the keys of the chunks that there are of the array at `path`."""
        ...
