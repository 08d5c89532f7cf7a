"""A search result as a read-only Zarr store.

Not good for listing a million granules: each one's document is then composed, one after
another. `View.table` and `View.to_dataset` have the fields without that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import NoReturn

from zarr.abc.store import Store

from l2view.errors import ReadOnlyViewError
from l2view.stores.composed import (
    ChunkSource,
    ComposedStore,
    MetadataDocument,
    ResolvedChunk,
    is_metadata,
    resolve_chunk,
)
from l2view.stores.hierarchy import JSON, join
from l2view.virtual.join_shape import JoinedView
from l2view.virtual.tree import Tree

type Shape = Tree | JoinedView  # what a view shows: granules as groups, or joined into arrays
METADATA = "zarr.json"  # the name of a node's document


class ViewStore(ComposedStore):
    """The Zarr store of a view, which shows its shape."""

    def __init__(self, shape: Shape, *, read_only: bool = False) -> None:
        # zarr opens a store that calls itself read-only for mode="r" alone, and
        # `zarr.open_group(store)` means mode="a". So the store doesn't call itself so, and
        # refuses every write by name.
        super().__init__(read_only=read_only)
        self.shape = shape

    def __getstate__(self) -> JSON:
        return {"shape": self.shape, "read_only": self.read_only}

    def __setstate__(self, state: JSON) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def tree(self) -> Tree:
        """The granules as they are."""
        return self.shape.tree

    @property
    def source(self) -> Store:
        """The store that holds the granules' chunks."""
        return self.tree.source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ViewStore) and self.shape == other.shape

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        collection = self.shape.description["collection"]
        return f"<ViewStore: {len(self.tree.granules):,} granules of {collection}>"

    __str__ = __repr__

    def find(self, key: str) -> ChunkSource:
        """Return where the value at `key` comes from."""
        if is_metadata(key):
            path, _, name = key.rpartition("/")
            document = partial(self.shape.document, path)
            return MetadataDocument(document) if name == METADATA else None
        return self.shape.find(key)

    async def _resolve(self, key: str) -> ResolvedChunk:
        if not is_metadata(key):
            await self.shape.load(key)
        return await resolve_chunk(self.find(key))

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below `prefix`."""
        path = prefix.strip("/")
        document = await self.shape.document(path)
        if document is not None:
            yield METADATA
            if document["node_type"] == "group":
                for name in await self.shape.names(path):
                    yield name
                return
        array = path if document is not None else await self._array_above(path)
        if array is None:
            return
        names = set()
        async for key in self.shape.chunk_keys(array):
            if key.startswith(f"{path}/"):
                name = key[len(path) + 1 :].partition("/")[0]
                if name not in names:
                    names.add(name)
                    yield name

    async def _array_above(self, path: str) -> str | None:
        """Return the path of the array that `path` may be a part of a chunk's key of."""
        while path := path.rpartition("/")[0]:
            document = await self.shape.document(path)
            if document is not None:
                return path if document["node_type"] == "array" else None
        return None

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield every key that begins with `prefix`."""
        first, slash, _ = prefix.partition("/")
        if METADATA.startswith(prefix):
            yield METADATA
        for name in [first] if slash else await self.shape.names(""):
            if name.startswith(first):
                async for key in self._keys_below(name):
                    if key.startswith(prefix):
                        yield key

    async def _keys_below(self, path: str) -> AsyncIterator[str]:
        """Yield every key of the node at `path`."""
        document = await self.shape.document(path)
        if document is None:
            return
        yield f"{path}/{METADATA}"
        if document["node_type"] == "group":
            for child in await self.shape.names(path):
                async for key in self._keys_below(join(path, child)):
                    yield key
        else:
            async for key in self.shape.chunk_keys(path):
                yield key

    def _check_writable(self) -> NoReturn:
        raise ReadOnlyViewError(
            "a view is read-only; write to the store that holds the granules, "
            f"{self.shape.description['collection']}, or copy the view first"
        )

    def with_read_only(self, read_only: bool = False) -> ViewStore:
        """Return the same store, which says of itself what `read_only` is."""
        return ViewStore(self.shape, read_only=read_only)
