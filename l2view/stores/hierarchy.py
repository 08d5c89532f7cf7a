"""The groups and arrays of a Zarr store, of v2 or v3, consolidated or not, as Zarr v3 documents.

Documents are plain JSON: composing them as zarr's classes would cost more than reading them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeGuard

import icechunk
from zarr.abc.store import Store, SupportsGetSync
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.core.sync import sync

from l2view.cache import RecentCache
from l2view.errors import UnsupportedArrayError
from l2view.limits import limits
from l2view.stores import zarr_v2
from l2view.text import join_names

JSON = dict[str, Any]

METADATA_KEYS = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
"""Names under which Zarr keeps metadata: they are never chunks, groups or arrays."""

NO_NODES = METADATA_KEYS | {".", ".."}  # names within paths that lead to no node

OWN = "l2view"  # the group, and the attribute, of what only l2view says or reads
META = "meta"  # the group of a collection with its fields
WALKED = 256  # the nodes that are read together


def join(*parts: str) -> str:
    """Join paths of a hierarchy, leaving empty ones out."""
    return "/".join(filter(None, [part.strip("/") for part in parts]))


def resolve(path: str) -> str | None:
    """Return `path` without needless slashes, or None where it isn't a path inside a store.

    Examples
    --------
    >>> resolve("/granules//a/")
    'granules/a'
    >>> resolve("../secret") is None, resolve("s3://other/store") is None
    (True, True)
    """
    if "://" in path or "\\" in path or "\0" in path:
        return None
    names = [name for name in path.split("/") if name]
    if not NO_NODES.isdisjoint(names):
        return None
    return "/".join(names)


def parents(path: str) -> set[str]:
    """Return the paths of the groups that `path` lies in, but the root."""
    names = path.split("/")
    return {"/".join(names[:end]) for end in range(1, len(names))}


def group_document(attributes: JSON) -> JSON:
    """Return the Zarr v3 document of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


@dataclass(frozen=True)
class Node:
    """A group or array, by its path below the root.

    What is `stored` is its ``zarr.json``; in Zarr v2 its ``.zarray``, None of a group.
    """

    path: str
    zarr_format: Literal[2, 3]
    stored: JSON | None
    zattrs: JSON = field(default_factory=dict)
    is_consolidated: bool = False

    @property
    def zarray(self) -> JSON:
        """Its ``.zarray``, empty where there is none."""
        return (self.stored or {}) if self.zarr_format == 2 else {}

    @property
    def is_array(self) -> bool:
        """Whether it is an array."""
        if self.stored is None or self.zarr_format == 2:
            return self.stored is not None
        return bool(self.stored["node_type"] == "array")

    @property
    def key(self) -> str:
        """The key of its metadata below the root.

        In consolidated metadata, ``#`` and its place there follow.
        """
        if self.zarr_format == 3 and self.is_consolidated:
            return f"zarr.json#{self.path}"
        v2_name = ".zgroup" if self.stored is None else ".zarray"
        key = join(self.path, "zarr.json" if self.zarr_format == 3 else v2_name)
        return f".zmetadata#{key}" if self.is_consolidated else key

    def to_v3(self, *, masked: bool = True) -> JSON:
        """Return its Zarr v3 document (for `masked`, see `zarr_v2.array_document`).

        An `UnsupportedArrayError` says that there is none of an array of Zarr v2.
        """
        if self.stored is None:
            return group_document(self.zattrs)
        if self.zarr_format == 3:
            return self.stored
        masked = masked or zarr_v2.says_null(self.stored, self.zattrs)
        return zarr_v2.array_document(self.stored, self.zattrs, masked=masked)

    @cached_property
    def document(self) -> JSON | None:
        """Its Zarr v3 document; None of an array without one."""
        try:
            return self.to_v3()
        except UnsupportedArrayError:
            return None


class Hierarchy:
    """The nodes of a Zarr store below the group at the path `root`.

    `zarr_format` is that of the node that was read last.
    """

    def __init__(self, store: Store, root: str = "") -> None:
        self.store = store
        self.root = root
        self.zarr_format: Literal[2, 3] = 3
        self._cache: RecentCache[str, JSON] = RecentCache(limits().cached_documents)
        self._consolidated: Mapping[str, Node] | None = None

    def __getstate__(self) -> JSON:
        return {"store": self.store, "root": self.root}

    def __setstate__(self, state: JSON) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def key(self, path: str) -> str:
        """Return the store's key for `path`."""
        return join(self.root, path)

    async def read(self, path: str) -> JSON | None:
        """Read the document of the node at `path` from the store itself.

        Consolidated metadata is left aside, which may be older than what it describes.
        """
        node = await self._read_node(path)
        return None if node is None else node.to_v3(masked=False)

    async def walk(self, path: str = "") -> AsyncIterator[Node]:
        """Yield the nodes at and below `path`."""
        paths = [path]
        while paths:
            batch, paths = paths[:WALKED], paths[WALKED:]
            groups = []
            for node in await asyncio.gather(*map(self._node, batch)):
                if node is not None:
                    yield node
                    if not node.is_array:
                        groups.append(node.path)
            children = await asyncio.gather(*map(self.children, groups))
            below = zip(groups, children, strict=True)
            paths = [join(group, name) for group, names in below for name in names] + paths

    async def _node(self, path: str) -> Node | None:
        """Return the node at `path`, None where there is none."""
        consolidated = await self.consolidated_metadata()
        return consolidated.get(path) or await self._read_node(path)

    async def document(self, path: str) -> JSON | None:
        """Return the v3 document of the node at `path`, or None where there is none.

        An `UnsupportedArrayError` says that a Zarr v2 array has no v3 form.
        """
        document = self._cache.get(path)
        if document is None and (node := await self._node(path)) is not None:
            document = node.to_v3()
            self._cache.put(path, document)  # what isn't there yet may be there later
        return document

    async def prefetch(self, paths: Sequence[str]) -> None:
        """Read the documents of several nodes together, as `document` will want them.

        Icechunk answers many keys in the time of a few, where they are asked in one call.
        """
        consolidated = await self.consolidated_metadata()
        unread = [
            path
            for path in dict.fromkeys(paths)
            if path not in self._cache and path not in consolidated
        ]
        if self.zarr_format == 3:
            keys = [self.key(join(path, "zarr.json")) for path in unread]
            for path, buffer in zip(unread, await _read_many(self.store, keys), strict=True):
                if buffer is not None:
                    self._cache.put(path, _without_consolidated(json.loads(buffer.to_bytes())))
            return
        results = await asyncio.gather(*map(self.document, unread), return_exceptions=True)
        for error in results:  # an array without a v3 form says so when it is asked for
            if isinstance(error, Exception) and not isinstance(error, UnsupportedArrayError):
                raise error

    def cached_document(self, path: str) -> JSON | None:
        """Return the document of the node at `path` if it was read lately, else None."""
        return self._cache.get(path)

    async def children(self, path: str) -> list[str]:
        """Return the names directly below the group at `path`, sorted.

        They are taken for groups and arrays; none of them is read.
        """
        consolidated = await self.consolidated_metadata()
        if path in consolidated or (not path and consolidated):
            prefix = f"{path}/" if path else ""
            below = (name[len(prefix) :] for name in consolidated if name.startswith(prefix))
            return sorted({name.split("/", 1)[0] for name in below if name})
        names = {name.rstrip("/") async for name in self.store.list_dir(self.key(path))}
        return sorted(names - METADATA_KEYS)

    async def consolidated_metadata(self) -> Mapping[str, Node]:
        """Return the nodes of consolidated metadata by path, none where there is none."""
        if self._consolidated is None:
            supported = self.store.supports_consolidated_metadata
            self._consolidated = await self._read_consolidated() if supported else {}
        return self._consolidated

    async def _get(self, path: str, name: str) -> JSON | None:
        buffer = await self.store.get(join(self.root, path, name), default_buffer_prototype())
        return None if buffer is None else json.loads(buffer.to_bytes())

    async def _read_node(self, path: str) -> Node | None:
        """Return the node that the store has at `path`, None where there is none."""
        readers = (self._read_v3, self._read_v2)
        for read in readers if self.zarr_format == 3 else reversed(readers):
            if (node := await read(path)) is not None:
                self.zarr_format = node.zarr_format
                return node
        return None

    async def _read_v3(self, path: str) -> Node | None:
        document = await self._get(path, "zarr.json")
        return None if document is None else Node(path, 3, _without_consolidated(document))

    async def _read_v2(self, path: str) -> Node | None:
        zarray, zgroup, zattrs = await asyncio.gather(
            *(self._get(path, name) for name in (".zarray", ".zgroup", ".zattrs"))
        )
        is_missing = zarray is None and zgroup is None
        return None if is_missing else Node(path, 2, zarray, zattrs or {})

    async def _read_consolidated(self) -> Mapping[str, Node]:
        document, zmetadata = await asyncio.gather(
            self._get("", "zarr.json"), self._get("", ".zmetadata")
        )
        if document is not None:
            documents = (document.get("consolidated_metadata") or {}).get("metadata") or {}
            return {p: Node(p, 3, doc, is_consolidated=True) for p, doc in documents.items()}
        metadata = {} if zmetadata is None else zmetadata["metadata"]
        nodes = {}
        for key in metadata:
            path, _, name = key.rpartition("/")
            if name in (".zarray", ".zgroup"):
                zarray, zattrs = (
                    metadata.get(join(path, ".zarray")),
                    metadata.get(join(path, ".zattrs")),
                )
                nodes[path] = Node(path, 2, zarray, zattrs or {}, is_consolidated=True)
        return nodes


async def describe_root(hierarchy: Hierarchy) -> str:
    """Describe, for a message, the root of a store that isn't a collection."""
    try:
        names = await hierarchy.children("")
    except Exception as error:  # a store may refuse to list in ways of its own
        return f"its root can't be listed ({type(error).__name__})"
    if {"repo", "snapshots"} <= set(names):
        return (
            "it looks like an Icechunk repository: pass its path or URL, or "
            "icechunk.Repository.open(storage)"
        )
    names = names[:WALKED]
    documents = await asyncio.gather(*map(hierarchy.read, names), return_exceptions=True)
    groups = [
        name
        for name, document in zip(names, documents, strict=True)
        if isinstance(document, dict) and document["node_type"] == "group"
    ]
    if groups:
        return f"groups at its root: {join_names(groups)}. Name another with group="
    return "there is no Zarr hierarchy at its root"


async def _read_many(store: Store, keys: Sequence[str]) -> Sequence[Buffer | None]:
    """Read many small values in the way that costs `store` the least."""
    prototype = default_buffer_prototype()
    if reads_sync(store):
        return await asyncio.to_thread(
            lambda: [store.get_sync(key, prototype=prototype) for key in keys]
        )
    if isinstance(store, icechunk.IcechunkStore):
        with contextlib.suppress(TypeError):  # its answer where one of the keys isn't there
            return await store.get_partial_values(prototype, [(key, None) for key in keys])
    return await asyncio.gather(*(store.get(key, prototype) for key in keys))


def get_values(store: Store, keys: Sequence[str]) -> list[Buffer | None]:
    """Read the values at `keys`, requested together where that is faster."""
    prototype = default_buffer_prototype()
    if reads_sync(store):
        return [store.get_sync(key, prototype=prototype) for key in keys]

    async def get_all() -> list[Buffer | None]:
        return list(await asyncio.gather(*(store.get(key, prototype) for key in keys)))

    return sync(get_all())


def put_documents(store: Store, documents: Mapping[str, JSON]) -> None:
    """Write the documents of nodes, by path."""
    texts = {path: json.dumps(document) for path, document in documents.items()}
    put_values(store, {f"{path}/zarr.json": text.encode() for path, text in texts.items()})


def put_values(store: Store, values: Mapping[str, bytes]) -> None:
    """Write values at their keys, together."""

    async def put() -> None:
        buffers = {key: cpu.Buffer.from_bytes(value) for key, value in values.items()}
        await asyncio.gather(*(store.set(key, buffer) for key, buffer in buffers.items()))

    sync(put())


def reads_sync(store: Store) -> TypeGuard[SupportsGetSync]:
    """Return whether `store` can be read without an event loop."""
    # The second half is zarr's convention for stores that can only if another can.
    return isinstance(store, SupportsGetSync) and getattr(store, "_supports_sync_io", True)


def _without_consolidated(document: JSON) -> JSON:
    document.pop("consolidated_metadata", None)
    return document
