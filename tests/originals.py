"""The original files of the collections in `store_format`, served where those collections refer to.

Chunk references hold absolute URLs, so the port is fixed. It lies below the ports that Linux and
others hand out. Of several test processes one serves, until the last of them is done.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

FOLDER = Path(__file__).parent / "store_format"
PORT = 28417
URL = f"http://127.0.0.1:{PORT}/granules"


class Handler(SimpleHTTPRequestHandler):
    """Serves byte ranges, with ETags by content: a checkout has no modification times to trust."""

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._respond(with_body=False)

    def do_GET(self) -> None:
        self._respond(with_body=True)

    def _respond(self, *, with_body: bool) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        if self.headers.get("If-Match", etag) != etag:
            self.send_error(412)
            return
        start, stop = 0, len(data)
        byte_range = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if byte_range is not None:
            first, last = byte_range.groups()
            start = int(first) if first else len(data) - int(last)
            stop = min(int(last) + 1, len(data)) if first and last else len(data)
        self.send_response(200 if byte_range is None else 206)
        if byte_range is not None:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", self.date_time_string(0))
        self.end_headers()
        if with_body:
            self.wfile.write(data[start:stop])


class Server(ThreadingHTTPServer):
    request_queue_size = 128


@contextmanager
def serve(folder: Path = FOLDER) -> Iterator[str]:
    """Serve `folder` at `PORT`, unless another process does, and yield the URL of its granules.

    Raises
    ------
    RuntimeError
        Where another program has the port.
    """
    lock_file = Path(tempfile.gettempdir()) / f"l2view-{PORT}-{os.getuid()}.lock"
    with lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            server = Server(("127.0.0.1", PORT), partial(Handler, directory=str(folder)))
        except OSError as error:
            require_same_files(folder, error)
            yield URL
            return
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield URL
        finally:
            fcntl.flock(lock, fcntl.LOCK_EX)
            server.shutdown()
            thread.join()
            server.server_close()


def require_same_files(folder: Path, reason: OSError) -> None:
    """Raise a RuntimeError where the port serves anything but `folder`."""
    path = folder / "arrays.npz"
    try:
        with urlopen(f"http://127.0.0.1:{PORT}/{path.name}", timeout=10) as response:
            if response.read() == path.read_bytes():
                return
    except OSError:
        pass
    raise RuntimeError(
        f"the collections in {FOLDER} refer to files at {URL}, which can't be served: {reason}. "
        "End the program that has the port"
    ) from reason
