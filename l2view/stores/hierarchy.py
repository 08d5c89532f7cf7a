"""The groups and arrays of a Zarr store, as Zarr v3 documents.

One reader for Zarr v2 and v3, consolidated or not, so that nothing above this module
asks which of them a store is. Documents are plain JSON: a view passes most of them on,
and composing them as zarr's classes would cost more than reading them.

Not good for chunks: those go from the source store to the reader untouched.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

import icechunk
from zarr.abc.store import Store, SupportsGetSync
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.core.sync import sync

from l2view.errors import UnsupportedArrayError
from l2view.stores import zarr_v2
from l2view.text import join_names

JSON = dict[str, Any]

METADATA_KEYS = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
"""Names under which Zarr keeps metadata: they are never chunks, groups or arrays."""

OWN = "l2view"
"""The group of a collection with what only l2view reads."""

META = "meta"
"""The group of a collection with its fields."""

CACHED_DOCUMENTS = 4096
"""The documents that a hierarchy remembers."""

WALKED = 256
"""The nodes that are read together."""


class RecentCache[K: Hashable, V]:
    """The `size` values that were used last, by key, for several threads."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """Return the value of `key`, None where there is none."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Remember a value."""
        with self._lock:
            self._values[key] = value
            if len(self._values) > self.size:
                self._values.popitem(last=False)

    def __contains__(self, key: K) -> bool:
        return key in self._values


def join(*parts: str) -> str:
    """Join paths of a hierarchy, leaving empty ones out."""
    return "/".join(part.strip("/") for part in parts if part.strip("/"))


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
    if any(name in (".", "..") or name in METADATA_KEYS for name in names):
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

    Attributes
    ----------
    document
        Its Zarr v3 document; None of an array without a v3 form.
    zarr_format
        The format in which it is stored.
    key
        The key of its metadata below the root; in consolidated metadata, ``#`` and its place there
        follow.
    zarray, zattrs
        Its metadata in Zarr v2, empty where there is none.
    """

    path: str
    document: JSON | None
    zarr_format: Literal[2, 3]
    key: str
    zarray: JSON = field(default_factory=dict)
    zattrs: JSON = field(default_factory=dict)

    @property
    def is_array(self) -> bool:
        """Whether it is an array."""
        return self.document is None or self.document["node_type"] == "array"


class Hierarchy:
    """The nodes of a Zarr store below the group at the path `root`."""

    def __init__(self, store: Store, root: str = "") -> None:
        self.store = store
        self.root = root
        self._cache: RecentCache[str, JSON] = RecentCache(CACHED_DOCUMENTS)
        self._consolidated: Mapping[str, JSON] | None = None
        self._format: Literal[2, 3] = 3

    def __getstate__(self) -> JSON:
        return {"store": self.store, "root": self.root}

    def __setstate__(self, state: JSON) -> None:
        self.__init__(state["store"], state["root"])  # type: ignore[misc]

    @property
    def zarr_format(self) -> Literal[2, 3]:
        """The format of the node that was read last."""
        return self._format

    def key(self, path: str) -> str:
        """Return the store's key for `path`."""
        return join(self.root, path)

    async def read(self, path: str, *, masked: bool = False) -> JSON | None:
        """Read the document of the node at `path` from the store itself.

        Consolidated metadata is left aside, which may be older than what it describes. For
        `masked`, see `zarr_v2.array_document`.
        """
        if self._format == 3:
            return await self._read_v3(path) or await self._read_v2(path, masked)
        return await self._read_v2(path, masked) or await self._read_v3(path)

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
        if path in consolidated:
            if isinstance(consolidated, _ConsolidatedV2):
                return _v2_node(path, *consolidated.raw_metadata(path), consolidated=True)
            return Node(path, consolidated[path], 3, f"zarr.json#{path}")
        if self._format == 3 and (document := await self._read_v3(path)):
            return Node(path, document, 3, join(path, "zarr.json"))
        zarray, zgroup, zattrs = await self._stored_v2(path)
        if zarray is not None or zgroup is not None:
            return _v2_node(path, zarray, zattrs)
        document = await self._read_v3(path) if self._format == 2 else None
        return None if document is None else Node(path, document, 3, join(path, "zarr.json"))

    async def document(self, path: str) -> JSON | None:
        """Return the v3 document of the node at `path`, or None where there is none.

        An `UnsupportedArrayError` says that a Zarr v2 array has no v3 form.
        """
        document = self._cache.get(path)
        if document is None:
            consolidated = await self.consolidated_metadata()
            document = consolidated.get(path) or await self.read(path, masked=True)
            if document is not None:  # what isn't there yet may be there later
                self._cache.put(path, document)
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
        if self._format == 3:
            keys = [self.key(join(path, "zarr.json")) for path in unread]
            for path, buffer in zip(unread, await _read_many(self.store, keys), strict=True):
                if buffer is not None:
                    self._cache.put(path, _v3_document(buffer))
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

    async def consolidated_metadata(self) -> Mapping[str, JSON]:
        """Return the consolidated metadata by path, empty where there is none."""
        if self._consolidated is None:
            supported = self.store.supports_consolidated_metadata
            self._consolidated = await self._read_consolidated() if supported else {}
        return self._consolidated

    async def _get(self, path: str, name: str) -> JSON | None:
        buffer = await self.store.get(join(self.root, path, name), default_buffer_prototype())
        return None if buffer is None else json.loads(buffer.to_bytes())

    async def _read_v3(self, path: str) -> JSON | None:
        key = join(self.root, path, "zarr.json")
        buffer = await self.store.get(key, default_buffer_prototype())
        if buffer is None:
            return None
        self._format = 3
        return _v3_document(buffer)

    async def _read_v2(self, path: str, masked: bool) -> JSON | None:
        zarray, zgroup, zattrs = await self._stored_v2(path)
        if zarray is None and zgroup is None:
            return None
        return _v2_document(zarray, zattrs, masked)

    async def _stored_v2(self, path: str) -> tuple[JSON | None, JSON | None, JSON | None]:
        """Return what Zarr v2 has of the node at `path`."""
        zarray, zgroup, zattrs = await asyncio.gather(
            self._get(path, ".zarray"), self._get(path, ".zgroup"), self._get(path, ".zattrs")
        )
        if zarray is not None or zgroup is not None:
            self._format = 2
        return zarray, zgroup, zattrs

    async def _read_consolidated(self) -> Mapping[str, JSON]:
        document, zmetadata = await asyncio.gather(
            self._get("", "zarr.json"), self._get("", ".zmetadata")
        )
        if document is not None:
            inline = document.get("consolidated_metadata") or {}
            return dict(inline.get("metadata") or {})
        if zmetadata is None:
            return {}
        return _ConsolidatedV2(zmetadata["metadata"])


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


def _v2_node(
    path: str, zarray: JSON | None, zattrs: JSON | None, *, consolidated: bool = False
) -> Node:
    """Return a node of Zarr v2."""
    inside = join(path, ".zgroup" if zarray is None else ".zarray")
    try:
        document = _v2_document(zarray, zattrs, masked=True)
    except UnsupportedArrayError:
        document = None
    key = f".zmetadata#{inside}" if consolidated else inside
    return Node(path, document, 2, key, zarray or {}, zattrs or {})


def _v3_document(buffer: Buffer) -> JSON:
    document: JSON = json.loads(buffer.to_bytes())
    document.pop("consolidated_metadata", None)
    return document


def _v2_document(zarray: JSON | None, zattrs: JSON | None, masked: bool) -> JSON:
    if zarray is not None:
        masked = masked or zarr_v2.says_null(zarray, zattrs or {})
        return zarr_v2.array_document(zarray, zattrs or {}, masked=masked)
    return group_document(zattrs or {})


class _ConsolidatedV2(Mapping[str, JSON]):
    """The documents of a ``.zmetadata`` by path, made when they are asked for."""

    def __init__(self, metadata: Mapping[str, JSON]) -> None:
        self._metadata = metadata
        self._paths = {
            key.rpartition("/")[0]: None
            for key in metadata
            if key.rpartition("/")[2] in (".zarray", ".zgroup")
        }

    def __getitem__(self, path: str) -> JSON:
        if path not in self._paths:
            raise KeyError(path)
        return _v2_document(*self.raw_metadata(path), masked=True)

    def raw_metadata(self, path: str) -> tuple[JSON | None, JSON | None]:
        """Return what there is of an array or group, and its attributes."""
        array, attributes = join(path, ".zarray"), join(path, ".zattrs")
        return self._metadata.get(array), self._metadata.get(attributes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
