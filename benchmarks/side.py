"""One query on one engine, in a process of its own: ``side.py ENGINE QUERY FOLDER``.

It prints the number of rows, the seconds of the first run and the median of those after it, and
the most memory that the process held beyond what it held before, in MiB. It imports nothing of
the benchmarks, as it also runs where l2view isn't installed.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

PLACE = "POLYGON((5 40, 14 40, 14 49, 5 49, 5 40))"
FIRST, LAST = "2018-06-01T00:00:00", "2018-06-02T19:59:59"
WHERE = {
    "date": f"date >= '{FIRST}' AND date <= '{LAST}'",
    "place": f"ST_Intersects(bbox, ST_GeomFromText('{PLACE}'))",
    "corners": "xmin < 14 AND xmax > 5 AND ymin < 49 AND ymax > 40",
    "text": "collection = 'landsat-c2-l2' AND cloud_cover < 1",
}
QUERIES = {
    "date": f"SELECT group_path FROM meta WHERE {WHERE['date']}",
    "place": f"SELECT bbox FROM meta WHERE {WHERE['place']}",
    "corners": f"SELECT xmin FROM meta WHERE {WHERE['corners']}",
    "text": f"SELECT group_path FROM meta WHERE {WHERE['text']}",
    "group": "SELECT collection, COUNT(*) FROM meta GROUP BY collection",
    "order": "SELECT group_path FROM meta ORDER BY cloud_cover LIMIT 100",
}
SHOWN = {
    "date": "group_path",
    "place": "bbox",
    "corners": "xmin",
    "text": "group_path",
    "order": "group_path",
}
"""The field that a query shows."""

RUNS = 6

type Run = Callable[[], Awaitable[int]]


async def l2view(query: str, folder: str, store: str = "indexed.zarr") -> Run:
    import l2view as package

    collection = package.Collection(f"{folder}/{store}")

    async def run() -> int:
        if query == "group":
            return int(collection.sql(QUERIES[query]).to_arrow_table().num_rows)
        asked: dict[str, Any] = {"where": WHERE.get(query), "fields": SHOWN[query]}
        if query == "order":
            asked |= {"order_by": "cloud_cover", "limit": 100}
        found = collection.search(**asked)
        return int(found.num_rows)

    return run


async def unindexed(query: str, folder: str) -> Run:
    return await l2view(query, folder, "plain.zarr")


async def duckdb(query: str, folder: str) -> Run:
    import duckdb as package

    connection = package.connect()
    connection.execute(f"CREATE VIEW meta AS SELECT * FROM '{folder}/rows.parquet'")

    async def run() -> int:
        return int(connection.sql(QUERIES[query]).to_arrow_table().num_rows)

    return run


async def datafusion(query: str, folder: str) -> Run:
    from datafusion import SessionContext

    context = SessionContext()
    context.register_parquet("meta", f"{folder}/rows.parquet")

    async def run() -> int:
        return sum(batch.num_rows for batch in context.sql(QUERIES[query]).collect())

    return run


async def zarr_datafusion_search(query: str, folder: str, store: str = "plain.zarr") -> Run:
    import geodatafusion
    from datafusion import SessionContext
    from obstore.store import LocalStore
    from zarr_datafusion_search import ZarrTable

    table = await ZarrTable.from_obstore(LocalStore(f"{folder}/{store}"), "/meta")
    context: Any = SessionContext()
    geodatafusion.register_all(context)
    context.register_table("meta", table)

    async def run() -> int:
        return sum(batch.num_rows for batch in context.sql(QUERIES[query]).collect())

    return run


async def zarr_datafusion_search_indexed(query: str, folder: str) -> Run:
    return await zarr_datafusion_search(query, folder, "indexed.zarr")


ENGINES: dict[str, Callable[[str, str], Awaitable[Run]]] = {
    "l2view": l2view,
    "unindexed": unindexed,
    "duckdb": duckdb,
    "datafusion": datafusion,
    "zarr-datafusion-search": zarr_datafusion_search,
    "zarr-datafusion-search, indexed": zarr_datafusion_search_indexed,
}


def peak() -> float:
    """Return the most memory that this process held, in MiB.

    What `resource` tells of that begins with what its parent held.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


async def main(engine: str, query: str, folder: str) -> None:
    run = await ENGINES[engine](query, folder)
    seconds = []
    count = 0
    for _ in range(RUNS):
        began = time.perf_counter()
        count = await run()
        seconds.append(time.perf_counter() - began)
    print(json.dumps([count, seconds[0], statistics.median(seconds[1:]), peak()]))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(main(*sys.argv[1:4]))
