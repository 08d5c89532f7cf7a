"""Icechunk repositories as sources: their chunks are referred to where they lie.

Virtual chunks are handed on, native ones are files of the repository, and those within manifests
are copied.
"""

from __future__ import annotations

from typing import Any

import icechunk
import numpy as np
from obspec_utils.protocols import ReadableFile
from obspec_utils.registry import ObjectStoreRegistry
from zarr.core.sync import sync

from l2view.errors import IngestError
from l2view.granules.chunks import BATCH, INLINE, NATIVE, iterate_sync
from l2view.ingest.files import locate_repository, repository_store
from l2view.ingest.manifests import Chunks, Manifests, read_nodes
from l2view.stores.hierarchy import JSON, Hierarchy, Node, join


def parse_repository(
    url: str, reader: ReadableFile | None, stores: ObjectStoreRegistry[Any], threshold: int
) -> Manifests:
    """Return a group of a repository as references (see `l2view.ingest.formats.CheckedParser`)."""
    location = locate_repository(url)
    assert location is not None
    root, group = location
    store = repository_store(root)
    nodes = {node.path: node for node in sync(_nodes(Hierarchy(store, group)))}

    def read(path: str, document: JSON) -> Chunks:
        return _chunks(store, join(group, path), document, root)

    manifests = read_nodes(nodes, nodes.__getitem__, read)
    if "" in manifests.omitted or not (
        manifests.arrays or manifests.groups[""] or manifests.omitted
    ):
        raise IngestError("it is no group of its Icechunk repository")
    return manifests


async def _nodes(hierarchy: Hierarchy) -> list[Node]:
    return [node async for node in hierarchy.walk()]


def _chunks(store: icechunk.IcechunkStore, path: str, document: JSON, root: str) -> Chunks:
    """Return the chunks of an array of the repository at `root`."""
    chunks = Chunks.missing(document)
    grid = np.array(chunks.paths.shape, np.int64)
    strides = np.cumprod([1, *grid[:0:-1]])[::-1][: len(grid)]
    pages = store.array_chunk_iterator(f"/{path}", BATCH)
    for indices, kinds, paths, offsets, lengths, inlined in iterate_sync(pages):
        inside = (indices < grid).all(axis=1) & (kinds != INLINE)
        positions = (indices.astype(np.int64) @ strides)[inside]
        urls = np.array(
            [
                f"{root}/chunks/{name}" if kind == NATIVE else name
                for name, kind in zip(paths, kinds.tolist(), strict=True)
            ],
            np.dtypes.StringDType(),
        )
        chunks.paths.reshape(-1)[positions] = urls[inside]
        chunks.offsets.reshape(-1)[positions] = offsets[inside]
        chunks.lengths.reshape(-1)[positions] = lengths[inside]
        for row, data in inlined.items():
            chunks.copy(tuple(indices[row].tolist()), bytes(data))
    return chunks
