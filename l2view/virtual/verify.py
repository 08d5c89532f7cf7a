"""Whether the files behind a view are still what they were when they were referred to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import batched, product

from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding
from zarr.core.sync import sync

from l2view.errors import AuthorizationError, ChunkError
from l2view.stores.hierarchy import JSON, join
from l2view.virtual.store import ViewStore

CONCURRENCY = 64
"""How many granules are looked at together."""

READS = 256
"""How many chunks of a granule are looked at together."""


def verify(store: ViewStore) -> Iterator[tuple[str, str | None]]:
    """Yield the name of each granule, and what is wrong with its files, None where nothing is.

    One byte of a chunk of each file is read: where the file isn't the one that was referred to,
    that is an error. Of granules that l2view didn't ingest it is a chunk of each array.

    Parameters
    ----------
    store
        The view's store.
    """
    names = store.tree.granules.names
    for first in range(0, len(names), CONCURRENCY):
        some = names[first : first + CONCURRENCY].to_pylist()
        yield from zip(some, sync(_all(store, some)), strict=True)


async def _all(store: ViewStore, names: list[str]) -> list[str | None]:
    await store.shape.documents(names)
    return await asyncio.gather(*(_granule(store, name) for name in names))


async def _granule(store: ViewStore, name: str) -> str | None:
    row = store.tree.granules.row(name)
    assert row is not None
    probes = await store.tree.layout.probes(store.tree.granules.location(row))
    try:
        if probes is None:
            await _each_array(store, name)
            return None
        for probe in probes:
            path, _, tail = join(name, probe).rpartition("/c/")
            if tail == "*":
                document = await store.tree.layout.document(
                    store.tree.granules.location(row), probe.removesuffix("/c/*")
                )
                await _read(store, [] if document is None else _keys(path, document))
            else:
                await _read(store, [join(name, probe)])
    except AuthorizationError:
        raise
    except ChunkError as error:
        return str(error)
    return None


async def _each_array(store: ViewStore, path: str) -> None:
    """Read a byte of the first chunk that there is of each array below a group."""
    for child in await store.shape.names(path):
        inner = join(path, child)
        document = await store.shape.document(inner)
        if document is None:
            continue
        if document["node_type"] == "group":
            await _each_array(store, inner)
            continue
        for key in _keys(inner, document):
            if await _byte(store, key):
                break


async def _read(store: ViewStore, keys: Iterable[str]) -> None:
    for some in batched(keys, READS):
        await asyncio.gather(*(_byte(store, key) for key in some))


async def _byte(store: ViewStore, key: str) -> bool:
    """Read the first byte of a chunk, and return whether there is one."""
    found = await store.get(key, default_buffer_prototype(), RangeByteRequest(0, 1))
    return found is not None


def _keys(path: str, document: JSON) -> Iterator[str]:
    """Yield the keys of all chunks of an array with the regular grid of `document`."""
    encoding = parse_chunk_key_encoding(document["chunk_key_encoding"])
    lengths = document["chunk_grid"]["configuration"]["chunk_shape"]
    grid = [-(-n // c) for n, c in zip(document["shape"], lengths, strict=True)]
    return (join(path, encoding.encode_chunk_key(at)) for at in product(*map(range, grid)))
