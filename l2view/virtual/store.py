"""A search result as a read-only Zarr store.

A metadata document is composed when it is asked for. The key of a chunk is translated into
a key of the source store, whose own `get` answers with whatever byte range was wanted: the
bytes of a granule never pass through anything else.

Not good for listing a million granules: each one's document is then composed, one after
another. `View.table` and `View.to_dataset` have the fields without that.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import icechunk
import obstore.exceptions
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync

from l2view.errors import AuthorizationError, ChunkError, ReadOnlyViewError
from l2view.stores.hierarchy import JSON, METADATA_KEYS, join, reads_sync
from l2view.text import strip_credentials
from l2view.virtual.crop import CroppedChunk
from l2view.virtual.join_array import Absent, Region
from l2view.virtual.shape import METADATA, Shape, Unread

if TYPE_CHECKING:
    from l2view.virtual.tree import Tree


class ViewStore(Store):
    """The Zarr store of a view.

    Parameters
    ----------
    shape
        What it shows.
    """

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
        said = self.shape.description
        return f"<ViewStore: {len(self.tree.granules):,} granules of {said['collection']}>"

    __str__ = __repr__

    # Keys

    async def _found(self, key: str) -> str | bytes | Region | Absent | None:
        """Return where the value at `key` is."""
        path, _, name = key.rpartition("/")
        if name in METADATA_KEYS:
            document = await self.shape.document(path) if name == METADATA else None
            return None if document is None else json.dumps(document).encode()
        await self.shape.load(key)
        found = self.shape.find(key)
        if isinstance(found, Unread):
            if await self.tree.layout.document(found.location, "") is None:
                return None
            found = self.shape.find(key)
        if isinstance(found, CroppedChunk):
            found = await found.find()
        if found is None or isinstance(found, str | bytes):
            return found
        return found if isinstance(found, Region | Absent) else None

    # Reading

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the value at `key`, or a part of it (see `zarr.abc.store.Store`)."""
        await self._ensure_open()
        found = await self._found(key)
        if found is None:
            return None
        try:
            if isinstance(found, str):
                return await self.source.get(found, prototype, byte_range)
            if not isinstance(found, bytes):
                made = await found.read(prototype)
                return None if made is None else _part(made, byte_range)
        except Exception as error:
            raise_explained(error, key)
        return _part(prototype.buffer.from_bytes(found), byte_range)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the value at `key` without an event loop, where the source can."""
        if not reads_sync(self.source):
            raise TypeError(f"{type(self.source).__name__} has no synchronous reads")
        prototype = prototype or default_buffer_prototype()
        is_chunk = key.rpartition("/")[2] not in METADATA_KEYS
        found = self.shape.find(key) if is_chunk else None
        if isinstance(found, str):
            try:
                return self.source.get_sync(found, prototype=prototype, byte_range=byte_range)
            except Exception as error:
                raise_explained(error, key)
        return sync(self.get(key, prototype, byte_range))

    @property
    def _supports_sync_io(self) -> bool:
        return reads_sync(self.source)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return parts of values, in the order asked for."""
        return await asyncio.gather(
            *(self.get(key, prototype, byte_range) for key, byte_range in key_ranges)
        )

    async def get_ranges(
        self,
        key: str,
        byte_ranges: Sequence[ByteRequest | None],
        *,
        prototype: BufferPrototype,
        **limits: Any,
    ) -> AsyncIterator[Sequence[tuple[int, Buffer | None]]]:
        """Yield parts of one value, joined into as few reads as the source store makes."""
        source = await self._found(key)
        if not isinstance(source, str):
            async for group in super().get_ranges(key, byte_ranges, prototype=prototype, **limits):
                yield group
            return
        try:
            async for group in self.source.get_ranges(
                source, byte_ranges, prototype=prototype, **limits
            ):
                yield group
        except Exception as error:
            raise_explained(error, key)

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        requests = list(requests)
        found = await asyncio.gather(*(self.get(*request) for request in requests))
        for (key, _, _), value in zip(requests, found, strict=True):
            yield key, value

    async def exists(self, key: str) -> bool:
        """Return whether there is a value at `key`."""
        found = await self._found(key)
        if isinstance(found, str):
            return await self.source.exists(found)
        return found is not None

    async def getsize(self, key: str) -> int:
        """Return the size in bytes of the value at `key`."""
        found = await self._found(key)
        if isinstance(found, str):
            return await self.source.getsize(found)
        made = found if found is None or isinstance(found, bytes) else None
        if made is None and found is not None:
            buffer = await found.read(default_buffer_prototype())  # type: ignore[union-attr]
            made = None if buffer is None else buffer.to_bytes()
        if made is None:
            raise FileNotFoundError(key)
        return len(made)

    # Listing

    @property
    def supports_listing(self) -> bool:
        """Whether the source store can list its keys."""
        return self.source.supports_listing

    @property
    def supports_consolidated_metadata(self) -> bool:
        """Always False: documents are composed, so there is nothing to save by it."""
        return False

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
        seen = set()
        async for key in self.shape.chunk_keys(array):
            if key.startswith(f"{path}/"):
                name = key[len(path) + 1 :].partition("/")[0]
                if name not in seen:
                    seen.add(name)
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

    async def list(self) -> AsyncIterator[str]:
        """Yield every key."""
        async for key in self.list_prefix(""):
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

    # Writing

    @property
    def supports_writes(self) -> bool:
        """Always False."""
        return False

    @property
    def supports_deletes(self) -> bool:
        """Always True: zarr then asks for a deletion, which is refused by name."""
        return True

    def _check_writable(self) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ReadOnlyViewError(
            "a view is read-only; write to the store that holds the granules, "
            f"{self.shape.description['collection']}, or copy the view first"
        )

    def with_read_only(self, read_only: bool = False) -> ViewStore:
        """Return the same store, which says of itself what `read_only` is."""
        return ViewStore(self.shape, read_only=read_only)

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse."""
        self._refuse()

    async def delete(self, key: str) -> None:
        """Refuse."""
        self._refuse()

    async def delete_dir(self, prefix: str) -> None:
        """Refuse."""
        self._refuse()

    async def clear(self) -> None:
        """Refuse."""
        self._refuse()

    def set_sync(self, key: str, value: Buffer) -> None:
        """Refuse."""
        self._refuse()

    def delete_sync(self, key: str) -> None:
        """Refuse."""
        self._refuse()


def _part(value: Buffer, byte_range: ByteRequest | None) -> Buffer:
    """Return the part of `value` that was asked for."""
    match byte_range:
        case None:
            return value
        case RangeByteRequest(start, end):
            return value[start:end]
        case OffsetByteRequest(offset):
            return value[offset:]
        case SuffixByteRequest(suffix):
            return value[max(len(value) - suffix, 0) :]


def raise_explained(error: Exception, key: str) -> NoReturn:
    """Raise `error` again, saying which chunk it was and what to do.

    Raises
    ------
    AuthorizationError
        Where the chunk lies in a container that wasn't authorised.
    ChunkError
        Where the object that holds it is gone, has changed, or can't be read.
    """
    if not isinstance(error, icechunk.IcechunkError | obstore.exceptions.BaseError):
        raise error
    reason = strip_credentials(re.split(r"\n\n(?:context|Debug source):", str(error))[0].strip())
    kind = getattr(error, "kind", None)
    if kind == icechunk.ErrorKind.UNAUTHORIZED_VIRTUAL_CHUNK_CONTAINER:
        found = re.search(r"url prefix (\S+?),", reason)
        prefix = found.group(1) if found else "…"
        raise AuthorizationError(
            f"the chunk {key} lies in {prefix}, which you have not authorised l2view to read. "
            f"If you trust this repository, pass authorize=[{prefix!r}] to l2view.open, or open "
            "the repository with authorize_virtual_chunk_access= where you pass a session"
        ) from error
    raise ChunkError(f"the chunk {key} can't be read: {reason}") from error
