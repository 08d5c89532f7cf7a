"""Settings, as zarr and Dask keep theirs.

``l2view.config.set({"cache.bytes": 2**28})`` changes one, for good or as a context manager; so
do the environment's ``L2VIEW_CACHE__BYTES`` and a file in ``~/.config/l2view``. What each of them
means stands beside its value.
"""

from __future__ import annotations

from typing import Any

from donfig import Config

from l2view.errors import L2ViewError

DEFAULTS: dict[str, Any] = {
    "cache": {
        # The most bytes of decoded chunks and indexes that a process keeps in memory; 0 for none.
        "bytes": 2**30,
        # A folder in which decoded chunks and indexes are kept beyond the process; None for none.
        "folder": None,
        # The most bytes that are kept in it.
        "folder_bytes": 10 * 2**30,
    },
    "mosaic": {
        # The most bytes of decoded chunks of images that a process keeps for the chunks of a mosaic
        # beside that which they were read for.
        "bytes": 2**28,
        # The same of where the cells of swaths lie.
        "cells_bytes": 2**29,
    },
}


def most_bytes(name: str) -> int:
    """Return a setting that is a number of bytes. An `L2ViewError` is raised where it is none."""
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise L2ViewError(f"the setting {name} is a number of bytes, not {value!r}")
    return max(0, int(value))


config = Config("l2view", defaults=[DEFAULTS])
config.__doc__ = __doc__
