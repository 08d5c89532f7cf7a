"""The sum of an array in SQL, in a process of its own: ``cells_side.py ENGINE STORE [RUNS]``.

It prints the sum, the median of the seconds, and the most memory that the process held in MiB. It
imports nothing of the benchmarks, as it also runs where l2view isn't installed.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any


def l2view(path: str) -> Callable[[], Any]:
    import l2view as package

    query = "SELECT SUM(value) FROM zarr_cells('value')"
    return lambda: package.sql(path, query).to_arrow_table().column(0)[0].as_py()


def xarray_sql(path: str) -> Callable[[], Any]:
    import xarray as xr
    import xarray_sql as package

    context = package.XarrayContext()
    context.from_dataset("t", xr.open_zarr(path, consolidated=False, chunks=None))
    return lambda: context.sql("SELECT SUM(value) FROM t").to_arrow_table().column(0)[0].as_py()


def peak() -> float:
    """Return the most memory that this process held, in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    run = {"l2view": l2view, "xarray-sql": xarray_sql}[sys.argv[1]](sys.argv[2])
    runs = int(sys.argv[3]) if len(sys.argv) > 3 else 7
    seconds, total = [], None
    for _ in range(runs):
        began = time.perf_counter()
        total = run()
        seconds.append(time.perf_counter() - began)
    print(json.dumps([float(total), statistics.median(seconds), peak()]))
