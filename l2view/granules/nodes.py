"""Documents, references and chunks into an Icechunk store, many at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

import icechunk
import numpy as np

from l2view.errors import L2ViewError
from l2view.granules.references import ArrayReferences, Checksum
from l2view.stores.hierarchy import JSON, put_values


def put_documents(store: icechunk.IcechunkStore, documents: Mapping[str, JSON]) -> None:
    """Write the documents of nodes, by path."""
    put_values(
        store, {f"{path}/zarr.json": json.dumps(said).encode() for path, said in documents.items()}
    )


def put_chunks(
    store: icechunk.IcechunkStore,
    path: str,
    array: ArrayReferences,
    checksums: Mapping[str, Checksum],
    prefix: Sequence[int] = (),
) -> None:
    """Write the references of an array, and the chunks that it holds itself.

    Parameters
    ----------
    store
        A writable session's store.
    path
        The array that is written to; it is there.
    array
        What is written.
    checksums
        What tells whether a file has changed, by URL.
    prefix
        Chunk indices before the array's own.

    Raises
    ------
    L2ViewError
        Where a reference can't be written.
    """
    files = array.files
    failed: object = None
    if len(files) == 1:
        failed = store.set_virtual_refs_arr(
            f"/{path}",
            (*(1 for _ in prefix), *array.grid),
            array.locations,
            array.offsets,
            array.lengths,
            validate_containers=False,
            arr_offset=(*prefix, *(0 for _ in array.grid)),
            checksum=checksums.get(next(iter(files))),
        )
    elif files:
        specs = [
            _spec([*prefix, *index], place, offset, length, checksums.get(place))
            for index, place, offset, length in zip(
                np.ndindex(array.grid),
                array.locations,
                array.offsets.tolist(),
                array.lengths.tolist(),
                strict=True,
            )
            if place
        ]
        failed = store.set_virtual_refs(f"/{path}", specs, validate_containers=False)
    if failed:
        raise L2ViewError(f"{array.path}: some of its references can't be written: {failed}")
    if array.inlined:
        chunks = {(*prefix, *index): data for index, data in array.inlined.items()}
        put_values(
            store, {"/".join([path, "c", *map(str, at)]): data for at, data in chunks.items()}
        )


def _spec(
    index: list[int], place: str, offset: int, length: int, checksum: Checksum | None
) -> icechunk.VirtualChunkSpec:
    return icechunk.VirtualChunkSpec(
        index,
        place,
        offset,
        length,
        etag_checksum=checksum if isinstance(checksum, str) else None,
        last_updated_at_checksum=checksum if isinstance(checksum, datetime) else None,
    )
