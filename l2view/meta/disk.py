"""What was decoded, kept in a folder for other processes and other days.

Each value is a file in Arrow's IPC format, named by a hash of its key (see `cache`), and read
where it lies. Not good for secrets: whoever may read the folder reads the fields.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Hashable
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from l2view.config import config, most_bytes
from l2view.errors import L2ViewError, L2ViewWarning, warn

SUFFIX = ".arrow"

LOOKS = 16  # the folder is looked through whenever one in so many parts of its budget was written


class Folder:
    """Arrays by key in the folder ``cache.folder`` of `l2view.config`, None for none.

    Those that were not asked for the longest are deleted where they take more than
    ``cache.folder_bytes``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._written: dict[Path, int] = {}

    @property
    def path(self) -> Path | None:
        """The folder; an `L2ViewError` where the setting is no path."""
        setting = config.get("cache.folder")
        if setting is None or setting == "":
            return None
        if not isinstance(setting, str | os.PathLike):
            raise L2ViewError(f"the setting cache.folder is a path, not {setting!r}")
        return Path(setting).expanduser()

    @property
    def budget(self) -> int:
        """The most bytes that are kept (see `most_bytes`)."""
        return most_bytes("cache.folder_bytes")

    def get(self, key: Hashable) -> pa.Array | None:
        """Read the array of `key`, None where there is none."""
        folder = self.path
        if folder is None:
            return None
        path = _file(folder, key)
        try:
            with pa.memory_map(str(path)) as mapped:
                array = pa.ipc.open_file(mapped).get_batch(0).column(0)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowInvalid, IndexError):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return array

    def put(self, key: Hashable, array: pa.Array) -> None:
        """Keep an array, if there is room for it at all."""
        folder, budget = self.path, self.budget
        if folder is None or array.nbytes > budget:
            return
        path = _file(folder, key)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Others see all of it, whenever they look.
            handle, name = tempfile.mkstemp(dir=path.parent)
            try:
                batch = pa.record_batch({"values": array})
                with os.fdopen(handle, "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
                    writer.write_batch(batch)
                size = Path(name).stat().st_size
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            warn(f"nothing is kept in {folder}: {error.strerror or error}", L2ViewWarning)
            return
        with self._lock:
            written = self._written.get(folder, budget) + size
            if written * LOOKS >= budget:
                _evict(folder, budget - budget // LOOKS)
                written = 0
            self._written[folder] = written


_version = cache(version)


def _file(folder: Path, key: Hashable) -> Path:
    """Path of a key's file; each version of l2view decodes in its own way."""
    text = repr((_version("l2view"), key)).encode()
    name = hashlib.blake2b(text, digest_size=20).hexdigest()
    return folder / name[:2] / (name[2:] + SUFFIX)


def _evict(folder: Path, budget: int) -> None:
    """Delete the files that were not asked for the longest, until the others are within budget."""
    files = []
    for path in folder.glob(f"??/*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # which another process deleted
            stat = path.stat()
            files.append((stat.st_mtime_ns, stat.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= budget:
            break
        path.unlink(missing_ok=True)
        total -= size


FOLDER = Folder()  # the folder of this process
