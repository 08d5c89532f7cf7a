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
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, NoReturn

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

from l2view.errors import (
    AuthorizationError,
    ChunkError,
    MissingGranuleWarning,
    ReadOnlyViewError,
    SkippedArrayWarning,
    UnsupportedArrayError,
    warn,
    without_credentials,
)
from l2view.hierarchy import JSON, METADATA_KEYS, join, reads_sync
from l2view.layout import Layout, Location, UnreadError
from l2view.view.attributes import OWN, array_attributes, group_attributes
from l2view.view.fields import FieldArray, field_arrays
from l2view.view.granules import Granules

METADATA = "zarr.json"


class ViewStore(Store):
    """The Zarr store of a view.

    Parameters
    ----------
    source
        The store that holds the granules' chunks.
    layout
        Where in it the granules lie.
    granules
        The granules found.
    description
        What the root's attribute ``l2view`` says.
    variables
        Globs for the arrays to show, None for all. One without a slash is matched with an
        array's name, one with a slash with its path below the granule.
    field_attributes
        The attributes of the arrays of ``/meta``, by name.
    """

    def __init__(
        self,
        source: Store,
        layout: Layout,
        granules: Granules,
        description: JSON,
        variables: Sequence[str] | None = None,
        field_attributes: Mapping[str, JSON] | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        # zarr opens a store that calls itself read-only for mode="r" alone, and
        # `zarr.open_group(store)` means mode="a". So the store doesn't call itself so, and
        # refuses every write by name.
        super().__init__(read_only=read_only)
        self.source = source
        self.layout = layout
        self.granules = granules
        self.description = description
        self.variables = None if variables is None else tuple(variables)
        self.field_attributes = dict(field_attributes or {})

    def __getstate__(self) -> JSON:
        names = [
            "source",
            "layout",
            "granules",
            "description",
            "variables",
            "field_attributes",
            "read_only",
        ]
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: JSON) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def head(self, count: int) -> ViewStore:
        """Return the store of the first `count` granules."""
        granules = self.granules.head(count)
        said = {**self.description, "head": len(granules), "count": len(granules)}
        return ViewStore(**self.__getstate__() | {"granules": granules, "description": said})

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ViewStore)
            and self.source == other.source
            and self.description == other.description
            and self.variables == other.variables
            and self.granules.table.equals(other.granules.table)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<ViewStore: {len(self.granules):,} granules of {self.description['collection']}>"

    __str__ = __repr__

    # What the root and the granules hold

    @cached_property
    def fields(self) -> dict[str, FieldArray]:
        """The root's arrays, by name."""
        return field_arrays(self.granules.table, self.field_attributes)

    @property
    def root(self) -> JSON:
        """The document of the root group."""
        return {"zarr_format": 3, "node_type": "group", "attributes": {OWN: self.description}}

    async def document(self, path: str) -> JSON | None:
        """Return the Zarr v3 document of the node at `path`, None where there is none."""
        if not path:
            return self.root
        name, _, inner = path.partition("/")
        if name in self.fields:
            return self.fields[name].document if not inner else None
        row = self.granules.row(name)
        if row is None:
            return None
        try:
            document = await self.layout.document(self.granules.location(row), inner)
        except UnsupportedArrayError as error:
            warn(f"{path} is left out: {error}", SkippedArrayWarning)
            return None
        if document is None:
            return None if inner else self._missing(row, name)
        return self._composed(document, row, inner)

    async def documents(self, paths: Sequence[str]) -> list[JSON | None]:
        """Return the documents of the nodes at `paths`, reading them together."""
        wanted = []
        for path in paths:
            name, _, inner = path.partition("/")
            row = self.granules.row(name)
            if row is not None:
                wanted.append((self.granules.location(row), inner))
        await self.layout.prefetch(wanted)
        return [await self.document(path) for path in paths]

    def _composed(self, document: JSON, row: int, inner: str) -> JSON | None:
        """Return a node's document with the granule's fields among its attributes."""
        source = document.get("attributes") or {}
        if document["node_type"] == "array":
            if not self.shows(inner):
                return None
            attributes = array_attributes(source, self.granules.attributes(row))
        elif inner:
            attributes = source
        else:
            attributes = group_attributes(source, self.granules.attributes(row))
        return {**document, "attributes": attributes}

    def _missing(self, row: int, name: str) -> JSON:
        reason = self.layout.missing(self.granules.location(row))
        if self.layout.fields:  # otherwise it is so of every granule, and was said of the view
            place = self.description["collection"]
            warn(f"the granule {name} has no arrays in {place}: {reason}", MissingGranuleWarning)
        attributes = {**self.granules.attributes(row), OWN: {"missing": reason}}
        return {"zarr_format": 3, "node_type": "group", "attributes": attributes}

    def shows(self, path: str) -> bool:
        """Return whether the array at `path` below a granule is among the variables."""
        if self.variables is None:
            return True
        name = path.rpartition("/")[2]
        return any(
            fnmatchcase(path if "/" in pattern else name, pattern) for pattern in self.variables
        )

    async def names(self, path: str) -> list[str]:
        """Return the names of the nodes directly below the group at `path`."""
        if not path:
            return [*self.fields, *self.granules.names.to_pylist()]
        name, _, inner = path.partition("/")
        row = self.granules.row(name)
        if row is None:
            return []
        below = await self.layout.children(self.granules.location(row), inner)
        if self.variables is None:
            return below
        documents = await asyncio.gather(*(self.document(join(path, child)) for child in below))
        return [child for child, found in zip(below, documents, strict=True) if found]

    # Keys

    def _is_metadata(self, key: str) -> bool:
        return key.rpartition("/")[2] in METADATA_KEYS

    def _source_key(self, key: str) -> tuple[str, Location] | str | None:
        """Return the source key for a chunk of a granule; or a granule that must be read.

        None where the key can't be one of a granule.
        """
        name, _, inner = key.partition("/")
        if not inner or name in self.fields:
            return None
        row = self.granules.row(name)
        if row is None:
            return None
        location = self.granules.location(row)
        try:
            return self.layout.source_key(location, inner)
        except UnreadError:
            return name, location

    async def _translated(self, key: str) -> str | None:
        found = self._source_key(key)
        if isinstance(found, tuple):
            if await self.layout.document(found[1], "") is None:
                return None
            found = self._source_key(key)
        return found if isinstance(found, str) else None

    def _field_chunk(self, key: str) -> bytes | None:
        """Return the chunk of a root array at `key`, None where there is none."""
        match = re.fullmatch(r"([^/]+)/c/(\d+)", key)
        if match is None or match.group(1) not in self.fields:
            return None
        return self.fields[match.group(1)].chunk(int(match.group(2)))

    async def _own(self, key: str) -> bytes | None:
        """Return what this store itself holds at `key`."""
        if not self._is_metadata(key):
            return self._field_chunk(key)
        path, _, name = key.rpartition("/")
        document = await self.document(path) if name == METADATA else None
        return None if document is None else json.dumps(document).encode()

    # Reading

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the value at `key`, or a part of it (see `zarr.abc.store.Store`)."""
        await self._ensure_open()
        if not self._is_metadata(key) and (source := await self._translated(key)) is not None:
            try:
                return await self.source.get(source, prototype, byte_range)
            except Exception as error:
                raise_explained(error, key)
        value = await self._own(key)
        return None if value is None else _part(prototype.buffer.from_bytes(value), byte_range)

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
        found = None if self._is_metadata(key) else self._source_key(key)
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
        source = None if self._is_metadata(key) else await self._translated(key)
        if source is None:
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
        if not self._is_metadata(key) and (source := await self._translated(key)) is not None:
            return await self.source.exists(source)
        return await self._own(key) is not None

    async def getsize(self, key: str) -> int:
        """Return the size in bytes of the value at `key`."""
        if not self._is_metadata(key) and (source := await self._translated(key)) is not None:
            return await self.source.getsize(source)
        value = await self._own(key)
        if value is None:
            raise FileNotFoundError(key)
        return len(value)

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
        name, _, inner = path.partition("/")
        document = await self.document(path)
        if document is not None:
            yield METADATA
            if document["node_type"] == "group":
                for child in await self.names(path):
                    yield child
                return
        if name in self.fields:
            keys = [key for key in self._field_keys(name) if key.startswith(f"{path}/")]
            for child in dict.fromkeys(key[len(path) + 1 :].partition("/")[0] for key in keys):
                if child != METADATA:
                    yield child
        elif inner and (source := await self._translated(path)) is not None:
            async for child in self.source.list_dir(source):
                if child.rstrip("/") not in METADATA_KEYS:
                    yield child.rstrip("/")

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield every key that begins with `prefix`."""
        for key in (METADATA, *(key for name in self.fields for key in self._field_keys(name))):
            if key.startswith(prefix):
                yield key
        first, slash, _ = prefix.partition("/")
        found = [first] if slash else self.granules.names.to_pylist()
        for name in found:
            if name.startswith(first) and self.granules.row(name) is not None:
                async for key in self._keys_below(name):
                    if key.startswith(prefix):
                        yield key

    def _field_keys(self, name: str) -> list[str]:
        array = self.fields[name]
        count = -(
            -len(array.column) // array.document["chunk_grid"]["configuration"]["chunk_shape"][0]
        )
        return [f"{name}/{METADATA}", *(f"{name}/c/{index}" for index in range(count))]

    async def list(self) -> AsyncIterator[str]:
        """Yield every key."""
        async for key in self.list_prefix(""):
            yield key

    async def _keys_below(self, path: str) -> AsyncIterator[str]:
        """Yield every key of the node at `path` of a granule."""
        document = await self.document(path)
        if document is None:
            return
        yield f"{path}/{METADATA}"
        if document["node_type"] == "group":
            for child in await self.names(path):
                async for key in self._keys_below(join(path, child)):
                    yield key
        elif (source := await self._translated(path)) is not None:
            async for key in self.source.list_prefix(f"{source}/"):
                if not self._is_metadata(key):
                    yield path + key.removeprefix(source)

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
            f"{self.description['collection']}, or copy the view first"
        )

    def with_read_only(self, read_only: bool = False) -> ViewStore:
        """Return the same store, which says of itself what `read_only` is."""
        state = self.__getstate__() | {"read_only": read_only}
        return ViewStore(**state)

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
    reason = without_credentials(re.split(r"\n\n(?:context|Debug source):", str(error))[0].strip())
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
