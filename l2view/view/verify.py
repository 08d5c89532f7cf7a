"""Whether the files behind a view are still what they were when they were referred to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from l2view.errors import AuthorizationError, ChunkError
from l2view.hierarchy import join
from l2view.view.store import ViewStore

CONCURRENCY = 64
"""How many granules are looked at together."""


def verify(store: ViewStore) -> Iterator[tuple[str, str]]:
    """Yield the names of granules with files that changed or are gone, and what is wrong.

    One byte of a chunk of each array is read: where the file isn't the one that was referred
    to, that is an error.

    Parameters
    ----------
    store
        The view's store.
    """
    names = store.granules.names
    for first in range(0, len(names), CONCURRENCY):
        some = names[first : first + CONCURRENCY].to_pylist()
        for name, reason in zip(some, sync(_all(store, some)), strict=True):
            if reason is not None:
                yield name, reason


async def _all(store: ViewStore, names: list[str]) -> list[str | None]:
    await store.documents(names)
    return await asyncio.gather(*(_granule(store, name) for name in names))


async def _granule(store: ViewStore, name: str) -> str | None:
    groups = [name]
    while groups:
        group = groups.pop()
        for child in await store.names(group):
            path = join(group, child)
            document = await store.document(path)
            if document is None:
                continue
            if document["node_type"] == "group":
                groups.append(path)
                continue
            key = "/".join([path, "c", *("0" for _ in document["shape"])])
            try:
                await store.get(key, default_buffer_prototype(), RangeByteRequest(0, 1))
            except AuthorizationError:
                raise
            except ChunkError as error:
                return str(error)
    return None
