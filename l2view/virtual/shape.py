"""The shapes that a view can have: what a `ViewStore` asks of them.

A shape composes the documents of a hierarchy, and knows of each chunk where its bytes are: in
the source store as they are, or to be made from a granule's values.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

from zarr.core.buffer import Buffer, BufferPrototype

from l2view.granules import Location
from l2view.stores.hierarchy import JSON

if TYPE_CHECKING:
    from l2view.virtual.tree import Tree

METADATA = "zarr.json"
"""The name of a node's document."""


@dataclass(frozen=True)
class Unread:
    """A chunk that can be found once its granule's document was read."""

    location: Location


class Made(Protocol):
    """A chunk that is made when it is read."""

    async def read(self, prototype: BufferPrototype) -> Buffer | None:
        """Return its bytes, None where there is no such chunk."""
        ...


class Deferred(Protocol):
    """A chunk that takes reading to be found."""

    async def find(self) -> Found:
        """Return where it is."""
        ...


type Found = str | bytes | Made | Deferred | Unread | None
"""Where a chunk is: a key of the source store, bytes at hand, what makes it, or what finds it."""


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

    def head(self, count: int) -> Shape:
        """Return the same of the first `count` granules."""
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

    def find(self, key: str) -> Found:
        """Return where the chunk at `key` is, None where it can't be one."""
        ...

    def chunk_keys(self, path: str) -> AsyncIterator[str]:
        """Yield the keys of the chunks that there are of the array at `path`."""
        ...


def is_shown(path: str, variables: Sequence[str] | None) -> bool:
    """Return whether the array at `path` below a granule is among the `variables`.

    Examples
    --------
    >>> is_shown("data_01/ku/swh", ["s*"]), is_shown("data_01/ku/swh", ["data_20/*"])
    (True, False)
    """
    if variables is None:
        return True
    name = path.rpartition("/")[2]
    return any(fnmatchcase(path if "/" in pattern else name, pattern) for pattern in variables)
