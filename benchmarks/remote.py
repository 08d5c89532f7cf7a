"""A cold search of ten million rows with indexes, on an S3-compatible server that is far away.

The server is moto's, on this machine; between it and l2view stands a proxy that passes each
request on after 50 ms, and counts them.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from obstore.store import LocalStore, S3Store

from .measure import Row
from .side import WHERE

BUCKET = "collection"
LATENCY = 0.05

SEARCH = """
import json, sys, time, warnings
from obstore.store import S3Store
warnings.simplefilter("ignore")
import l2view
l2view.config.set({"cache.folder": sys.argv[3]})
from datafusion import SessionContext
SessionContext().sql("SELECT 1").collect()  # what is loaded once isn't the store's
store = S3Store("collection", endpoint=sys.argv[1], region="us-east-1", access_key_id="key",
                secret_access_key="secret", client_options={"allow_http": True})
began = time.perf_counter()
found = l2view.search(store, sys.argv[2], fields="group_path").num_rows
print(json.dumps([found, time.perf_counter() - began]))
"""


def port() -> int:
    """Return a port that is free."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def served() -> Iterator[str]:
    """Run an S3-compatible server."""
    at = port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(at)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{at}"
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


def s3(url: str) -> S3Store:
    """Return the bucket."""
    return S3Store(
        BUCKET,
        endpoint=url,
        region="us-east-1",
        access_key_id="key",
        secret_access_key="secret",
        client_options={"allow_http": True},
    )


def upload(folder: Path, url: str) -> None:
    """Copy a folder into the bucket."""
    request = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
    request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/x")
    urllib.request.urlopen(request).close()
    source, target = LocalStore(folder), s3(url)
    for page in source.list():
        for one in page:
            target.put(one["path"], source.get(one["path"]).bytes())


class Proxy:
    """Passes requests on after a while, and counts them."""

    def __init__(self, target: str) -> None:
        self.host, self.target = target.removeprefix("http://").split(":")
        self.requests = 0

    async def _pass(self, reader: Any, writer: Any, *, delayed: bool) -> None:
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def send() -> None:
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                writer.write(data)
                await writer.drain()
                if not data:
                    writer.close()
                    return

        sender = asyncio.create_task(send())
        while True:
            data = await reader.read(2**16)
            if delayed and data[:4] in (b"GET ", b"HEAD"):
                self.requests += 1
            await waiting.put((time.perf_counter() + LATENCY * delayed, data))
            if not data:
                break
        await sender

    async def connect(self, reader: Any, writer: Any) -> None:
        """Serve one connection."""
        there, back = await asyncio.open_connection(self.host, int(self.target))
        try:
            await asyncio.gather(
                self._pass(reader, back, delayed=True), self._pass(there, writer, delayed=False)
            )
        except ConnectionError:
            writer.close()


async def _searched(url: str, where: str, kept: str = "") -> tuple[int, float, int]:
    proxy = Proxy(url)
    server = await asyncio.start_server(proxy.connect, "127.0.0.1", 0)
    at = server.sockets[0].getsockname()[1]
    command = [sys.executable, "-c", SEARCH, f"http://127.0.0.1:{at}", where, kept]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    server.close()
    found, seconds = json.loads(out)
    return int(found), float(seconds), proxy.requests


def remote(folder: Path) -> Iterator[Row]:
    """A cold search by date and place, with indexes, 50 ms away."""
    with served() as url:
        upload(folder / "indexed.zarr", url)
        where = f"{WHERE['date']} AND {WHERE['place']}"
        runs = [asyncio.run(_searched(url, where)) for _ in range(3)]
        kept = str(folder / "kept")
        again = [asyncio.run(_searched(url, where, kept)) for _ in range(4)][1:]
    found, seconds, requests = sorted(runs, key=lambda run: run[1])[1]
    assert found
    assert {run[0] for run in again} == {found}
    yield Row("cold search by date and place on S3 50 ms away", seconds, 1, "s")
    yield Row("its requests", requests, 60)
    _, seconds, requests = sorted(again, key=lambda run: run[1])[1]
    yield Row("the same in a process that finds chunks in a folder", seconds, 1, "s")
    yield Row("its requests", requests, 60)
