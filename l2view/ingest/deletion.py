"""Granules out of a collection: from every search, in one commit; the past still has them."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable
from typing import Any

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray

from l2view.errors import IngestError
from l2view.index.indexes import ZONES
from l2view.index.writer import limit_indexes, zones_from
from l2view.ingest.writer import ATTEMPTS, IDS
from l2view.stores.hierarchy import META, Hierarchy


def delete_granules(
    repository: icechunk.Repository,
    find: Callable[[icechunk.Session], NDArray[np.int64]],
    *,
    branch: str = "main",
) -> tuple[int, str | None]:
    """Delete the granules that `find` finds.

    Their rows leave ``/meta``, and the rows after them move up. Their slots stay empty of a
    row: what they refer to is found by no search any more.

    Parameters
    ----------
    repository
        The collection's repository.
    find
        Called with a session, it returns row numbers.
    branch
        The branch to commit to.

    Returns
    -------
    int, str
        How many, and the commit; None where there were none.

    Raises
    ------
    IngestError
        Where others commit first, time and again.
    """
    for attempt in range(ATTEMPTS):
        session = repository.writable_session(branch)
        rows = np.unique(find(session))
        if len(rows) == 0:
            return 0, None
        root = zarr.open_group(session.store, mode="a")
        meta = root[META]
        assert isinstance(meta, zarr.Group)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of dtypes without a v3 specification
            for _, array in meta.arrays():
                _without(array, rows)
            if IDS in root:
                _without(root[IDS], rows)
            if ZONES in root:
                zones_from(Hierarchy(session.store), int(rows[0]))
            limit_indexes(session.store, rows=int(rows[0]))
        try:
            return len(rows), session.commit(f"delete {len(rows)} granules")
        except icechunk.ConflictError:
            time.sleep(random.uniform(0, min(2.0, 0.02 * 2**attempt)))  # noqa: S311 (no secret)
    raise IngestError(f"others committed first {ATTEMPTS} times; nothing was deleted")


def _without(array: Any, rows: NDArray[np.int64]) -> None:
    """Take rows out of a field; what lies before the first of them isn't touched."""
    length, first = int(array.shape[0]), int(rows[0])
    tail = np.asarray(array[first:])
    kept = np.ones(length - first, dtype=bool)
    kept[rows - first] = False
    values = tail[kept]
    if len(values):
        array[first : first + len(values)] = values
    array.resize((length - len(rows),))
