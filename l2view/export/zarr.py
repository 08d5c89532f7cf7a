"""A view copied for good: chunk bytes as they are, into any Zarr store.

An array's document is written after its chunks, and the root's after all: what was broken off
can't be taken for whole, and goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import json
import math
from itertools import batched
from typing import Any

import icechunk
import obstore.store
from zarr.abc.store import Store
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import ObjectStore
from zarr.storage._common import make_store

from l2view.errors import ExportError
from l2view.granules.chunks import grid_of
from l2view.progress import ReportProgress
from l2view.stores.hierarchy import JSON, OWN, join
from l2view.stores.urls import is_url
from l2view.virtual.join_array import chunk_keys
from l2view.virtual.store import METADATA, ViewStore, read_nodes

MARK = "l2view-copy/zarr.json"
"""The group by which a copy that isn't finished is known: the description of its view."""

MAX_CONSOLIDATED = 10_000
"""The most nodes whose documents the root tells too, for readers that open all of them."""

CONCURRENT_WRITES = 64  # how many chunks are copied together


def to_zarr(
    view: ViewStore, target: Any, progress: ReportProgress = lambda done, total: None
) -> None:
    """Copy a view (see `View.to_zarr`)."""
    sync(_copy(view, target, progress))


async def _copy(view: ViewStore, target: Any, progress: ReportProgress) -> None:
    store = await _open_target(target)
    description = json.loads(json.dumps(view.shape.description))
    mark = await store.get(MARK, default_buffer_prototype())
    if mark is None:
        if await store.exists(METADATA):
            raise ExportError(f"there is a Zarr hierarchy in {store} already; copy into another")
        started = {"zarr_format": 3, "node_type": "group", "attributes": {OWN: description}}
        await _put(store, MARK.rpartition("/")[0], started)
    elif json.loads(mark.to_bytes())["attributes"].get(OWN) != description:
        raise ExportError(
            f"a copy of another search was begun in {store}; finish it, or copy into another"
        )
    documents = await read_nodes(view.shape, await view.shape.names(""))
    arrays = [(p, node) for p, node in documents.items() if node["node_type"] == "array"]
    groups = [(p, node) for p, node in documents.items() if node["node_type"] == "group"]
    for batch in batched(groups, CONCURRENT_WRITES):
        await asyncio.gather(*(_put(store, path, document) for path, document in batch))
    total = sum(math.prod(grid_of(document)) for _, document in arrays)
    done = 0
    # Icechunk takes chunks of what is there only; and nothing shows before its commit.
    document_first = isinstance(store, icechunk.IcechunkStore)
    for path, document in arrays:
        if document_first:
            await _put(store, path, document)
        elif await store.exists(join(path, METADATA)):
            done += math.prod(grid_of(document))
            progress(done, total)
            continue
        for keys in batched(chunk_keys(path, document), CONCURRENT_WRITES):
            await asyncio.gather(*(_copy_chunk(view, store, key) for key in keys))
            done += len(keys)
            progress(done, total)
        if not document_first:
            await _put(store, path, document)
    root = view.shape.root
    if store.supports_consolidated_metadata and len(documents) <= MAX_CONSOLIDATED:
        consolidated = {"kind": "inline", "must_understand": False, "metadata": documents}
        root = {**root, "consolidated_metadata": consolidated}
    await _put(store, "", root)
    await store.delete_dir(MARK.rpartition("/")[0])


async def _open_target(target: Any) -> Store:
    """Return the store to write to."""
    if isinstance(target, Store):
        return target
    if isinstance(target, str) and is_url(target) and not target.startswith("file://"):
        return ObjectStore(obstore.store.from_url(target))
    return await make_store(target, mode="a")


async def _copy_chunk(view: ViewStore, store: Store, key: str) -> None:
    """Copy one chunk, where it isn't there yet."""
    if await store.exists(key):
        return
    value = await view.get(key, default_buffer_prototype())
    if value is not None:
        await store.set(key, value)


async def _put(store: Store, path: str, document: JSON) -> None:
    await store.set(join(path, METADATA), cpu.Buffer.from_bytes(json.dumps(document).encode()))
