"""Files, wherever they are: one object store for each bucket, server or disk.

Nothing here writes.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import obstore
import obstore.store
from obspec_utils.protocols import ReadableFile
from obspec_utils.readers import BlockStoreReader
from obspec_utils.registry import ObjectStoreRegistry

from l2view.errors import IngestError
from l2view.granules.references import Checksum
from l2view.ingest.formats import HEAD
from l2view.stores.urls import is_url, key_of, root_of, url_of
from l2view.text import first_line, strip_credentials

WILD = re.compile(r"[*?\[]")
SMALL = 2**22
"""The size in bytes up to which a file is read at once."""
ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zmetadata", ".zattrs")
"""Files by which a folder is a Zarr hierarchy, and one granule."""
CHUNK = re.compile(r"c|\d+(\.\d+)*")
"""The names of a hierarchy's chunks (Zarr v2 and v3)."""
CONTAINED = frozenset({"file", "s3", "s3a", "gs", "gcs", "http", "https"})
"""The schemes of files that Icechunk can refer to."""
REMEMBERED = 1_000
"""The folders of a listing that are known to be hierarchies or not, the last ones of it."""


SUFFIXES = tuple(
    f".{name}"
    for names in (
        ("nc", "nc3", "nc4", "cdf", "netcdf", "h5", "hdf5", "he5", "h4", "hdf4", "he4", "hdf"),
        ("tif", "tiff", "gtiff", "zarr", "zip", "fit", "fits", "grb", "grb2", "grib", "grib2"),
        ("dmrpp", "json", "parq"),
    )
    for name in names
)
"""The ends of files' names that aren't part of a granule's id."""


@dataclass(frozen=True)
class FileInfo:
    """What is known of a file before it is read.

    Attributes
    ----------
    url
        Where it is.
    size
        In bytes.
    etag
        By which its store tells one content from another, None where it has none.
    modified
        When it was written last.
    """

    url: str
    size: int
    etag: str | None
    modified: datetime

    @property
    def checksum(self) -> Checksum:
        """What Icechunk compares with the file before it reads from it.

        The ETag, or where there is none that is strong (RFC 9110, 8.8.1) the time of the last
        change, to the second that Icechunk compares.
        """
        if self.etag and not self.etag.startswith("W/"):
            return f'"{self.etag}"'  # Icechunk takes one pair of quotes off
        whole = self.modified.replace(microsecond=0)
        return whole if whole == self.modified else whole + timedelta(seconds=1)


@lru_cache(maxsize=64)
def store_of(root: str) -> Any:
    """Return the object store of `root`; settings and credentials come from the environment.

    Raises
    ------
    IngestError
        Where there is no such kind of store.
    """
    if root == "file://":
        return obstore.store.LocalStore()
    try:
        if root.startswith(("http://", "https://")):
            # As any other server, whichever cloud's it is: that is what the URL says.
            plain = root.startswith("http://")
            return obstore.store.HTTPStore.from_url(root, client_options={"allow_http": plain})
        return obstore.store.from_url(root)
    except (ValueError, obstore.exceptions.BaseError) as error:
        raise IngestError(
            f"{strip_credentials(root)} can't be opened: {first_line(error)}"
        ) from error


def registry(*urls: str) -> ObjectStoreRegistry[Any]:
    """Return VirtualiZarr's registry with the stores of `urls`."""
    roots = {root_of(url) for url in urls}
    return ObjectStoreRegistry({root: store_of(root) for root in roots})


@contextmanager
def _read() -> Iterator[None]:
    """Raise what a store says as an error of ingest's."""
    try:
        yield
    except (obstore.exceptions.BaseError, OSError) as error:
        text = str(error).split("\n")[0]
        raise IngestError(f"it can't be read: {strip_credentials(text)}") from error


def head(url: str) -> FileInfo | None:
    """Return what a file's store says of it, None where there is no such file.

    Raises
    ------
    IngestError
        Where it can't be read.
    """
    with _read():
        try:
            return _info(url, obstore.head(store_of(root_of(url)), key_of(url)))
        except FileNotFoundError:
            return None


def opened(url: str) -> tuple[FileInfo, ReadableFile] | None:
    """Return what a file's store says of it, and its bytes; None where there is no such file.

    A small file is read at once: all there is to know of it takes one request.

    Raises
    ------
    IngestError
        Where it can't be read.
    """
    store, key = store_of(root_of(url)), key_of(url)
    with _read():
        try:
            found = obstore.get(store, key)
        except FileNotFoundError:
            return None
        info = _info(url, found.meta)
        small = info.size <= SMALL
        return info, BytesIO(found.bytes()) if small else BlockStoreReader(store, key)


def _info(url: str, meta: obstore.ObjectMeta) -> FileInfo:
    return FileInfo(url, meta["size"], meta["e_tag"], meta["last_modified"])


def first_bytes(reader: ReadableFile) -> bytes:
    """Return the beginning of a file.

    Raises
    ------
    IngestError
        Where it can't be read.
    """
    with _read():
        reader.seek(0)
        return reader.read(HEAD)


def is_zarr(url: str) -> bool:
    """Return whether there is a Zarr hierarchy at `url`."""
    store, prefix = store_of(root_of(url)), key_of(url)
    for mark in ZARR_MARKS:
        try:
            obstore.head(store, f"{prefix}/{mark}" if prefix else mark)
        except (FileNotFoundError, obstore.exceptions.BaseError):
            continue
        return True
    return False


def is_kerchunk(url: str) -> bool:
    """Return whether a folder that looks like Zarr holds Kerchunk's references in Parquet."""
    store, prefix = store_of(root_of(url)), key_of(url)
    try:
        found = bytes(obstore.get(store, f"{prefix}/.zmetadata").bytes())
    except (FileNotFoundError, obstore.exceptions.BaseError):
        return False
    return b'"record_size"' in found


def expanded(place: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the URLs of the files that a path, URL, folder, prefix or glob names, in order.

    Raises
    ------
    IngestError
        Where a folder, prefix or glob names none.
    """
    text = os.fspath(place)
    wild = WILD.search(text)
    if wild and is_url(text) and "=" in text.partition("?")[2]:
        wild = None  # a query, which is refused by name where the file is opened
    if wild and not (not is_url(text) and Path(text).exists()):
        yield from _matching(url_of(text[: wild.start()].rpartition("/")[0] or "."), text)
        return
    url = url_of(text)
    folder = text.endswith("/") or (url.startswith("file://") and Path("/" + key_of(url)).is_dir())
    if not folder:
        yield url
    elif is_zarr(url.rstrip("/")):
        yield url.rstrip("/")
    else:
        yield from _below(url.rstrip("/"), text)


def _matching(base: str, pattern: str) -> Iterator[str]:
    """Yield the URLs of granules below `base` that match `pattern`."""
    # Not taken apart as a URL, which would end at a question mark.
    inside = is_url(pattern) and pattern.partition("://")[2].partition("/")[2]
    whole = inside or os.path.abspath(pattern).lstrip("/")  # noqa: PTH100
    match = re.compile(_regex(whole)).fullmatch
    found = False
    for url in _granules(base):
        if match(key_of(url)):
            found = True
            yield url
    if not found:
        raise IngestError(f"{strip_credentials(pattern)} names no file")


def _regex(pattern: str) -> str:
    """Return a glob as a regular expression: ``*`` stays within a folder, ``**`` doesn't."""
    meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    return "".join(
        meanings.get(part, part.replace("[!", "[^") if part.startswith("[") else re.escape(part))
        for part in parts
    )


def _below(base: str, asked: str) -> Iterator[str]:
    found = False
    for url in _granules(base):
        inside = key_of(url)[len(key_of(base)) :]
        if not any(part.startswith(".") for part in inside.split("/")):
            found = True
            yield url
    if not found:
        raise IngestError(f"there is no file below {strip_credentials(asked)}")


def _granules(base: str) -> Iterator[str]:
    """Yield the URLs of the files below `base`; a Zarr hierarchy among them is one."""
    known: OrderedDict[str, bool] = OrderedDict()

    def is_root(folder: str) -> bool:
        if folder not in known:
            known[folder] = is_zarr(folder)
            if len(known) > REMEMBERED:
                known.popitem(last=False)
        return known[folder]

    for file in below(base):
        parts = file.url[len(base) + 1 :].split("/")
        folders = ["/".join([base, *parts[:end]]) for end in range(1, len(parts))]
        if any(known.get(folder) for folder in folders):
            continue
        # Only what may be a part of a hierarchy is worth asking for.
        suspect = parts[-1] in ZARR_MARKS or CHUNK.fullmatch(parts[-1])
        yield next(filter(is_root, folders), file.url) if suspect else file.url


def below(base: str) -> Iterator[FileInfo]:
    """Yield the files below `base`, a page of them in memory, sorted by page.

    Raises
    ------
    IngestError
        Where they can't be listed.
    """
    root, prefix = root_of(base), key_of(base)
    try:
        for page in obstore.list(store_of(root), prefix=prefix or None):
            for meta in sorted(page, key=lambda meta: meta["path"]):
                yield _info(f"{root}/{quote(meta['path'])}", meta)
    except obstore.exceptions.BaseError as error:
        text = str(error).split("\n")[0]
        raise IngestError(f"{strip_credentials(base)} can't be listed: {text}") from error
