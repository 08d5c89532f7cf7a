"""A search result as a read-only Zarr store.

Not good for listing a million granules: each one's document is then composed, one after
another. `View.table` and `View.to_dataset` have the fields without that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from itertools import batched
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
from l2view.virtual.join_array import chunk_keys
from l2view.virtual.join_shape import JoinedView
from l2view.virtual.tree import Tree

type Shape = Tree | JoinedView  # what a view shows: granules as groups, or joined into arrays
METADATA = "zarr.json"  # the name of a node's document
CONCURRENCY = 128  # how many nodes, mostly granules, are read together


async def walk(shape: Shape, paths: Sequence[str]) -> AsyncIterator[tuple[str, JSON]]:
    """Yield the nodes at some paths and all below them with their documents, parents first."""
    for batch in batched(paths, CONCURRENCY):
        documents = zip(batch, await shape.documents(batch), strict=True)
        nodes = [(path, document) for path, document in documents if document is not None]
        groups = [path for path, document in nodes if document["node_type"] == "group"]
        names = zip(groups, await asyncio.gather(*map(shape.names, groups)), strict=True)
        for node in nodes:
            yield node
        async for node in walk(shape, [join(path, n) for path, below in names for n in below]):
            yield node


async def read_nodes(shape: Shape, paths: Sequence[str]) -> dict[str, JSON]:
    """Return the documents of these nodes, by path."""
    return {path: document async for path, document in walk(shape, paths)}


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
        path = array = prefix.strip("/")
        while (document := await self.shape.document(array)) is None:  # within a chunk's key
            array = array.rpartition("/")[0]
        names = dict.fromkeys([METADATA] if array == path else [])
        if document["node_type"] == "array":
            async for key in self._chunk_keys(array, document):
                if key.startswith(f"{path}/"):
                    names[key[len(path) + 1 :].partition("/")[0]] = None
        elif array == path:
            names |= dict.fromkeys(await self.shape.names(path))
        for name in names:
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield every key that begins with `prefix`."""
        first, slash, _ = prefix.partition("/")
        if METADATA.startswith(prefix):
            yield METADATA
        names = [first] if slash else await self.shape.names("")
        async for path, document in walk(self.shape, [n for n in names if n.startswith(first)]):
            if (key := join(path, METADATA)).startswith(prefix):
                yield key
            if document["node_type"] == "array":
                async for key in self._chunk_keys(path, document):
                    if key.startswith(prefix):
                        yield key

    async def _chunk_keys(self, path: str, document: JSON) -> AsyncIterator[str]:
        """Yield the keys of the chunks that there are of an array, stored or computed."""
        source = await self.tree.source_path(path) if self.shape is self.tree else None
        if source is None:
            for key in chunk_keys(path, document):
                if await self.exists(key):
                    yield key
            return
        async for key in self.source.list_prefix(f"{source}/"):
            if not is_metadata(key):
                yield path + key.removeprefix(source)

    def _check_writable(self) -> NoReturn:
        raise ReadOnlyViewError(
            "a view is read-only; write to the store that holds the granules, "
            f"{self.shape.description['collection']}, or copy the view first"
        )

    def with_read_only(self, read_only: bool = False) -> ViewStore:
        """Return the same store, which says of itself what `read_only` is."""
        return ViewStore(self.shape, read_only=read_only)
