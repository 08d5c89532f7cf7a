"""Pools of threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache


def thread_pool(name: str, threads: int) -> ThreadPoolExecutor:
    """Return the pool of this process with a name; a forked process has none of its parent's."""
    return _pool(name, threads, os.getpid())


@cache
def _pool(name: str, threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix=f"l2view-{name}")
