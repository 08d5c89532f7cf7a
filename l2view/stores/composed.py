"""Read-only Zarr stores whose values are composed of what another store holds.

A key is resolved to a `ChunkSource`: a key of the source store, whose own `get` then answers with
whatever byte range was wanted; encoded bytes; or what computes them.
"""

from __future__ import annotations

import asyncio
import json
import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, runtime_checkable

import icechunk
import obstore.exceptions
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage._utils import _normalize_byte_range_index

from l2view.errors import AuthorizationError, ChunkError, ReadOnlyViewError
from l2view.stores.hierarchy import JSON, METADATA_KEYS, reads_sync
from l2view.text import strip_credentials


class ComputedChunk(Protocol):
    """A chunk that is computed when it is read."""

    async def read(self, prototype: BufferPrototype) -> Buffer | None:
        """Return the encoded chunk, None where there is none."""
        ...


@runtime_checkable
class LazyChunk(Protocol):
    """A chunk that takes reading to be found."""

    async def resolve(self) -> ChunkSource:
        """Return where it comes from."""
        ...


type ResolvedChunk = str | bytes | ComputedChunk | None
"""A key of the source store, encoded bytes, or what computes them; None where there is nothing."""

type ChunkSource = ResolvedChunk | LazyChunk  # the same, or what finds it


async def resolve_chunk(source: ChunkSource) -> ResolvedChunk:
    """Return where a chunk comes from, reading what that takes."""
    # Asked of a text first: whether it has the method of a `LazyChunk` takes as long as all else.
    while not isinstance(source, str | bytes) and isinstance(source, LazyChunk):
        source = await source.resolve()
    return source


@dataclass(frozen=True)
class MetadataDocument:
    """The ``zarr.json`` of a node, composed when it is asked for."""

    compose: Callable[[], Awaitable[JSON | None]]

    async def resolve(self) -> bytes | None:
        """Return the document as bytes, None where there is no such node."""
        document = await self.compose()
        return None if document is None else json.dumps(document).encode()


class ComposedStore(Store):
    """A read-only Zarr store over a source store."""

    @property
    @abstractmethod
    def source(self) -> Store:
        """The store that holds the chunks."""

    @abstractmethod
    def find(self, key: str) -> ChunkSource:
        """Return where the value at `key` comes from, without reading anything."""

    async def _resolve(self, key: str) -> ResolvedChunk:
        return await resolve_chunk(self.find(key))

    def _label(self, key: str) -> str:
        """Return what messages call a key."""
        return key

    # Reading

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the value at `key`, or a part of it (see `zarr.abc.store.Store`)."""
        await self._ensure_open()
        source = await self._resolve(key)
        try:
            if source is None:
                return None
            if isinstance(source, str):
                return await self.source.get(source, prototype, byte_range)
            if isinstance(source, bytes):
                buffer: Buffer | None = prototype.buffer.from_bytes(source)
            else:
                buffer = await source.read(prototype)
            if buffer is None:
                return None
            start, stop = _normalize_byte_range_index(buffer, byte_range)
            return buffer[start:stop]
        except Exception as error:
            raise_chunk_error(error, self._label(key))

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
        source = self.find(key)
        if not isinstance(source, str):
            return sync(self.get(key, prototype, byte_range))
        try:
            return self.source.get_sync(source, prototype=prototype, byte_range=byte_range)
        except Exception as error:
            raise_chunk_error(error, self._label(key))

    @property
    def _supports_sync_io(self) -> bool:
        return reads_sync(self.source)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
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
        source = await self._resolve(key)
        if isinstance(source, str):
            groups = self.source.get_ranges(source, byte_ranges, prototype=prototype, **limits)
        else:
            groups = super().get_ranges(key, byte_ranges, prototype=prototype, **limits)
        try:
            async for group in groups:
                yield group
        except Exception as error:
            raise_chunk_error(error, self._label(key))

    async def exists(self, key: str) -> bool:
        """Return whether there is a value at `key`."""
        source = await self._resolve(key)
        if isinstance(source, str):
            return await self.source.exists(source)
        return source is not None

    async def getsize(self, key: str) -> int:
        """Return the size in bytes of the value at `key`."""
        source = await self._resolve(key)
        if isinstance(source, str):
            return await self.source.getsize(source)
        return await super().getsize(key)

    @property
    def supports_listing(self) -> bool:
        """Whether the source store can list its keys."""
        return self.source.supports_listing

    @property
    def supports_consolidated_metadata(self) -> bool:
        """Always False: documents are composed, so there is nothing to save by it."""
        return False

    async def list(self) -> AsyncIterator[str]:
        """Yield every key."""
        async for key in self.list_prefix(""):
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

    def _check_writable(self) -> NoReturn:
        raise ReadOnlyViewError(f"{self} is read-only")

    async def delete(self, *arguments: Any, **named: Any) -> NoReturn:
        """Refuse."""
        self._check_writable()

    def delete_sync(self, *arguments: Any, **named: Any) -> NoReturn:
        """Refuse."""
        self._check_writable()

    set = delete_dir = clear = delete
    set_sync = delete_sync


def is_metadata(key: str) -> bool:
    """Return whether a key is one under which Zarr keeps metadata."""
    return key.rpartition("/")[2] in METADATA_KEYS


def raise_chunk_error(error: Exception, key: str) -> NoReturn:
    """Raise `error` again; one of Icechunk or obstore names the chunk and what to do."""
    if not isinstance(error, icechunk.IcechunkError | obstore.exceptions.BaseError):
        raise error
    reason = strip_credentials(re.split(r"\n\n(?:context|Debug source):", str(error))[0].strip())
    kind = getattr(error, "kind", None)
    if kind == icechunk.ErrorKind.UNAUTHORIZED_VIRTUAL_CHUNK_CONTAINER:
        match = re.search(r"url prefix (\S+?),", reason)
        prefix = match.group(1) if match else "…"
        raise AuthorizationError(
            f"the chunk {key} lies in {prefix}, which you have not authorised l2view to read. "
            f"If you trust this repository, pass authorize=[{prefix!r}] to l2view.open, or open "
            "the repository with authorize_virtual_chunk_access= where you pass a session"
        ) from error
    raise ChunkError(f"the chunk {key} can't be read: {reason}") from error
