"""Granules out of a collection: from every search, in one commit; the past still has them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray

from l2view.index.storage import ZONES, limit_indexes
from l2view.index.zone_maps import build_zones
from l2view.ingest.state import IDS
from l2view.ingest.writer import commit_with_retries
from l2view.stores.hierarchy import META, Hierarchy


def delete_granules(
    repository: icechunk.Repository,
    find: Callable[[icechunk.Session], NDArray[np.int64]],
    *,
    branch: str = "main",
) -> tuple[int, str | None]:
    """Delete the granules that `find` finds.

    Their rows leave ``/meta``, and the rows after them move up. Their slots stay, and no search
    finds them any more.

    Called with a session, `find` returns row numbers.

    Returns
    -------
    int, str
        The number of granules, and the commit, None where there were none.
    """
    count = 0

    def change(session: icechunk.Session) -> str | None:
        nonlocal count
        rows, store = np.unique(find(session)), session.store
        count = len(rows)
        if count == 0:
            return None
        root: Any = zarr.open_group(store, mode="a")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of dtypes without a v3 specification
            arrays = [array for _, array in root[META].arrays()]
            for array in [*arrays, *([root[IDS]] if IDS in root else [])]:
                _remove_rows(array, rows)
            if ZONES in root:
                build_zones(Hierarchy(store), int(rows[0]))
            limit_indexes(store, rows=int(rows[0]))
        return f"delete {count} granules"

    snapshot = commit_with_retries(repository, branch, change)
    return count, snapshot


def _remove_rows(array: Any, rows: NDArray[np.int64]) -> None:
    """Take rows out of a field; what lies before the first of them isn't touched."""
    length, begin = int(array.shape[0]), int(rows[0])
    values = np.delete(np.asarray(array[begin:]), rows - begin)
    if len(values):
        array[begin : begin + len(values)] = values
    array.resize((length - len(rows),))
