"""Whether the files behind a view are still what they were when they were referred to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import batched

from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from l2view.errors import AuthorizationError, ChunkError
from l2view.stores.hierarchy import join
from l2view.virtual.chunk import chunk_keys
from l2view.virtual.store import CONCURRENCY, ViewStore, walk
from l2view.virtual.tree import Tree

READS = 256  # how many chunks of a granule are read together


def verify_granules(tree: Tree) -> Iterator[tuple[str, str | None]]:
    """Yield the name of each granule, and what is wrong with its files, None where nothing is.

    One byte of a chunk of each file is read: where the file isn't the one that was referred to,
    that is an error. Of granules that l2view didn't ingest it is a chunk of each array.
    """
    store = ViewStore(replace(tree, crop=None))

    async def verify(names: Sequence[str]) -> list[str | None]:
        await store.shape.documents(names)
        return await asyncio.gather(*(_verify_granule(store, name) for name in names))

    for names in batched(tree.granules.names.to_pylist(), CONCURRENCY):
        yield from zip(names, sync(verify(names)), strict=True)


async def _verify_granule(store: ViewStore, name: str) -> str | None:
    tree = store.tree
    row = tree.granules.row(name)
    assert row is not None
    location = tree.granules.location(row)
    probes = await tree.layout.probes(location)
    try:
        if probes is None:  # a byte of the first chunk that there is of each array
            async for path, node in walk(store.shape, [name]):
                if node["node_type"] == "array":
                    for key in chunk_keys(path, node):
                        if await _read_byte(store, key):
                            break
        for probe in probes or ():
            path, is_array, _ = probe.partition("/c/*")
            if is_array:
                document = await tree.layout.document(location, path)
                keys = [] if document is None else chunk_keys(join(name, path), document)
                await _read(store, keys)
            else:
                await _read(store, [join(name, probe)])
    except AuthorizationError:
        raise
    except ChunkError as error:
        return str(error)
    return None


async def _read(store: ViewStore, keys: Iterable[str]) -> None:
    for batch in batched(keys, READS):
        await asyncio.gather(*(_read_byte(store, key) for key in batch))


async def _read_byte(store: ViewStore, key: str) -> bool:
    """Read the first byte of a chunk, and return whether there is one."""
    byte = await store.get(key, default_buffer_prototype(), RangeByteRequest(0, 1))
    return byte is not None
