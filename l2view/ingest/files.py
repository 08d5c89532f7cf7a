"""Files, wherever they are: one object store for each bucket, server or disk.

Nothing here writes. What can't be read or listed is an `IngestError` with the store's reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

import icechunk
import obstore
import obstore.store
from obspec_utils.protocols import ReadableFile
from obspec_utils.readers import BlockStoreReader
from obspec_utils.registry import ObjectStoreRegistry
from zarr.core.sync import sync
from zarr.storage import ObjectStore

from l2view.cache import RecentCache
from l2view.errors import IngestError, UnsupportedArrayError
from l2view.granules.layouts import NAME
from l2view.granules.references import Checksum
from l2view.ingest.granule import SUFFIXES
from l2view.stores.environment import icechunk_storage
from l2view.stores.hierarchy import METADATA_KEYS, Hierarchy, parents
from l2view.stores.urls import is_url, key_of, root_of, unquote_url, url_of
from l2view.text import first_line, strip_credentials

WILD = re.compile(r"[*?\[]")
SMALL = 2**22
"""The size in bytes up to which a file is read at once."""
CHUNK = re.compile(r"c|\d+(\.\d+)*|refs\.\d+\.parq")
"""The names of a hierarchy's chunks (Zarr v2 and v3), and of Kerchunk's tables of them."""
REPOSITORY = {"repo", "config.yaml", "refs", "chunks", "manifests", "snapshots", "transactions"}
SUSPECT = METADATA_KEYS | REPOSITORY | {"overwritten"}
"""The names of files and folders in Zarr hierarchies and Icechunk repositories."""
REMEMBERED = 1_000
"""The folders of a listing that are remembered as hierarchies or not."""
MAX_GROUP_DEPTH = 4
"""The most folders above a URL that a server is asked about an Icechunk repository."""
UNREACHABLE = re.compile("[\0-\x1f\x7f\ud800-\udfff]")
"""The characters of local names, as Python has them, that object stores and Icechunk refuse."""


class CollectionAsSourceError(IngestError):
    """A collection of l2view stands where a granule should."""


@dataclass(frozen=True)
class FileInfo:
    """A file's entry in its store; size in bytes, no ETag where its store has none."""

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
        second = self.modified.replace(microsecond=0)
        return second if second == self.modified else second + timedelta(seconds=1)

    @classmethod
    def from_meta(cls, url: str, meta: obstore.ObjectMeta) -> FileInfo:
        """Take what obstore says of a file."""
        return cls(url, meta["size"], meta["e_tag"], meta["last_modified"])


@lru_cache(maxsize=64)
def object_store(root: str) -> Any:
    """Return the object store of `root`; settings and credentials come from the environment."""
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


def store_registry(*urls: str) -> ObjectStoreRegistry[Any]:
    """Return VirtualiZarr's registry with the stores of `urls`."""
    roots = {root_of(url) for url in urls}
    return ObjectStoreRegistry({root: object_store(root) for root in roots})


@contextmanager
def _ingest_errors(action: str) -> Iterator[None]:
    """Raise a store's errors as an `IngestError`: "it can't be read"."""
    try:
        yield
    except (obstore.exceptions.BaseError, OSError) as error:
        line = strip_credentials(str(error).split("\n")[0])
        raise IngestError(f"{action}: {line}") from error


def file_info(url: str) -> FileInfo | None:
    """Return a file's entry, None where there is no such file."""
    with _ingest_errors("it can't be read"):
        try:
            return FileInfo.from_meta(url, obstore.head(object_store(root_of(url)), key_of(url)))
        except FileNotFoundError:
            return None


def open_file(url: str) -> tuple[FileInfo, ReadableFile] | None:
    """Return a file's entry and its bytes, None where there is no such file.

    A small file is read at once, in one request.
    """
    store, key = object_store(root_of(url)), key_of(url)
    if url.startswith("file://"):
        _require_readable(Path(os.fsdecode(unquote_to_bytes(urlsplit(url).path))))
    with _ingest_errors("it can't be read"):
        try:
            response = obstore.get(store, key)
        except FileNotFoundError:
            return None
        info = FileInfo.from_meta(url, response.meta)
        if info.size <= SMALL:
            return info, BytesIO(response.bytes())
        return info, BlockStoreReader(store, key)


def open_present(url: str) -> ReadableFile:
    """Return a file's bytes; an `IngestError` says that there is no such file."""
    if (file := open_file(url)) is None:
        raise IngestError("there is no such file")
    return file[1]


def _require_readable(path: Path) -> None:
    """Raise an `IngestError` where what lies at a path of this machine can't be read as a file."""
    if UNREACHABLE.search(str(path)):
        raise IngestError(
            "its path has control characters or bytes that are no UTF-8, which Icechunk can't "
            "refer to; rename it"
        )
    if path.is_symlink() and not path.exists():
        raise IngestError(f"it is a link to {path.readlink()}, which isn't there")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise IngestError("it is a pipe or device, and no file")


def parsable_url(url: str, links: ExitStack) -> str:
    """Return a URL as VirtualiZarr's parsers take it: with its key as it is, without # and ?.

    A local file with one of them has a link without until `links` are closed.
    """
    key = key_of(url)
    if not set("#?") & set(key):
        return unquote_url(url)
    if not url.startswith("file://"):
        raise IngestError("its name has # or ? in it, which VirtualiZarr's parsers can't take")
    folder = links.enter_context(TemporaryDirectory())
    link = Path(folder, re.sub("[#?]", "_", PurePosixPath(key).name))
    link.symlink_to(f"/{key}")
    return f"file://{link}"


def read_head(reader: ReadableFile, size: int) -> bytes:
    """Return the first bytes of a file."""
    with _ingest_errors("it can't be read"):
        reader.seek(0)
        return reader.read(size)


def read_range(url: str, offset: int, length: int) -> bytes:
    """Return some bytes of a file."""
    with _ingest_errors("it can't be read"):
        store = object_store(root_of(url))
        return bytes(obstore.get_range(store, key_of(url), start=offset, length=length))


def is_zarr(url: str) -> bool:
    """Return whether there is a Zarr hierarchy at `url`."""
    return _holds_one(url, sorted(METADATA_KEYS, reverse=True))  # zarr.json first


def _holds_one(folder: str, names: Iterable[str]) -> bool:
    """Return whether one of the files lies in a folder, without a word of a server's errors."""
    for name in names:
        with suppress(IngestError):
            if file_info(f"{folder}/{name}") is not None:
                return True
    return False


def is_zarr_array(url: str) -> bool:
    """Return whether the Zarr hierarchy at `url` is a single array."""
    hierarchy = Hierarchy(ObjectStore(object_store(root_of(url))), key_of(url))
    try:
        node = sync(hierarchy.read(""))
    except UnsupportedArrayError:  # which its parser says
        return True
    return node is not None and node["node_type"] == "array"


def is_kerchunk_parquet(url: str) -> bool:
    """Return whether a folder that looks like Zarr holds Kerchunk's references in Parquet."""
    store, prefix = object_store(root_of(url)), key_of(url)
    try:
        metadata = bytes(obstore.get(store, f"{prefix}/.zmetadata").bytes())
    except (FileNotFoundError, obstore.exceptions.BaseError):
        return False
    return b'"record_size"' in metadata


def is_repository(url: str) -> bool:
    """Return whether there is an Icechunk repository at `url`, of either of its formats."""
    return _holds_one(url, ("repo", "refs/branch.main/ref.json"))


def locate_repository(url: str) -> tuple[str, str] | None:
    """Return the Icechunk repository that a URL lies in, and the path of its group there.

    A server is asked about a few folders, and about none where the URL is that of a file.
    """
    root, key = root_of(url), key_of(url)
    folders = [key, *sorted(parents(key), reverse=True)]
    if root != "file://":
        is_file = PurePosixPath(key).suffix.lower() in SUFFIXES
        folders = [] if is_file else folders[: 1 + MAX_GROUP_DEPTH]
    for folder in folders:
        if is_repository(f"{root}/{quote(folder)}"):
            return f"{root}/{folder}", key[len(folder) :].strip("/")
    return None


def repository_store(root: str) -> icechunk.IcechunkStore:
    """Return the newest state of the branch ``main`` of an Icechunk repository."""
    if root.startswith("file://"):
        storage: Any = icechunk.local_filesystem_storage(f"/{key_of(root)}")
    else:
        storage = icechunk_storage(root)
    try:
        return icechunk.Repository.open(storage).readonly_session("main").store
    except icechunk.IcechunkError as error:
        raise IngestError(f"it can't be opened: {first_line(error)}") from error


def repository_granules(url: str) -> list[str]:
    """Return the URLs of an Icechunk repository's granules.

    They are the groups at its root, or the root itself where arrays lie there. An `IngestError`
    says that there is none; a collection has granules, but is none.
    """
    store = repository_store(unquote_url(url))
    hierarchy = Hierarchy(store)
    names = sync(hierarchy.children(""))
    root, *members = (sync(hierarchy.read(name)) for name in ["", *names])
    if root is not None and NAME in root["attributes"]:
        raise CollectionAsSourceError(
            f"{strip_credentials(url)} is a collection of l2view, not a granule"
        )
    if any(member and member["node_type"] == "array" for member in members):
        return [url]
    if not names:
        raise IngestError(f"{strip_credentials(url)} is an Icechunk repository without groups")
    return [f"{url}/{quote(name)}" for name in names]


def expand_path(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the URLs of the granules that a path, URL, folder, prefix or glob names, in order.

    An `IngestError` says that there is none.
    """
    text = os.fspath(path)
    if not text.partition("://")[2 if is_url(text) else 0]:
        raise IngestError(f"{text!r} names no granule: it has no path")
    wild = WILD.search(text)
    if wild and is_url(text) and "=" in text.partition("?")[2]:
        wild = None  # a query, which is refused by name where the file is opened
    if wild and (is_url(text) or not Path(text).exists()):
        base = url_of(text[: wild.start()].rpartition("/")[0] or ".")
        # Not taken apart as a URL, which would end at a question mark.
        key = is_url(text) and text.partition("://")[2].partition("/")[2]
        pattern = _glob_regex(key or os.path.abspath(text).lstrip("/"))  # noqa: PTH100
        message = f"{strip_credentials(text)} names no file"
    else:
        url = url_of(text)
        base = url.rstrip("/")
        is_folder = url.startswith("file://") and Path("/" + key_of(url)).is_dir()
        if not (is_folder or text.endswith("/")):
            yield url
            return
        if is_zarr(base):
            yield base
            return
        if is_repository(base):
            yield from repository_granules(base)
            return
        pattern = re.escape(key_of(base)) + r"(?s:(?!\.|.*/\.).*)"  # without hidden files
        message = f"there is no file below {strip_credentials(text)}"
    is_empty = True
    for granule, is_folder in _list_granules(base):
        if re.fullmatch(pattern, key_of(granule)):
            urls = [granule]
            if is_folder and is_repository(granule):
                try:
                    urls = repository_granules(granule)
                except CollectionAsSourceError:  # such as the one that is written to
                    continue
                except IngestError:  # which is said where it is opened
                    pass
            yield from urls
            is_empty = False
    if is_empty:
        raise IngestError(message)


def _glob_regex(pattern: str) -> str:
    """Return a glob as a regular expression: ``*`` stays within a folder, ``**`` doesn't."""
    meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    regex = "".join(
        meanings.get(t, t.replace("[!", "[^") if t.startswith("[") else re.escape(t))
        for t in tokens
    )
    try:
        re.compile(regex)
    except re.error as error:
        raise IngestError(f"the pattern {pattern} is none: {error.msg}") from error
    return regex


def _list_granules(base: str) -> Iterator[tuple[str, bool]]:
    """Yield the URLs of the files below `base`, and whether they are folders.

    A Zarr hierarchy or Icechunk repository among them is one.
    """
    hierarchies: RecentCache[str, bool] = RecentCache(REMEMBERED)

    def is_root(folder: str) -> bool:
        answer = hierarchies.get(folder)
        if answer is None:
            hierarchies.put(folder, answer := is_zarr(folder) or is_repository(folder))
        return answer

    is_local = base.startswith("file://")
    urls = _local_urls(f"/{key_of(base)}") if is_local else (f.url for f in list_files(base))
    for url in urls:
        names = url[len(base) + 1 :].split("/")
        folders = ["/".join([base, *names[:end]]) for end in range(1, len(names))]
        if any(hierarchies.get(folder) for folder in folders):
            continue
        # Only what may be a part of a hierarchy is worth asking for.
        suspect = CHUNK.fullmatch(names[-1]) or not SUSPECT.isdisjoint(names)
        folder = next(filter(is_root, folders), None) if suspect else None
        yield (url, False) if folder is None else (folder, True)


def _local_urls(top: str) -> Iterator[str]:
    """Yield the URLs of the files below a folder of this machine, links that lead out followed.

    What links within the folder lead to is among them already. Those of files and folders that
    can't be read are there, too, so that each fails by its name.
    """
    closed: list[OSError] = []
    seen = {Path(top).resolve()}

    def is_new(path: Path) -> bool:
        target = path.resolve() if path.is_symlink() else None
        if target is None or not target.exists():
            return True
        if any(target.is_relative_to(folder) for folder in seen):
            return False
        if target.is_dir():
            seen.add(target)
        return True

    for folder, folders, names in os.walk(top, onerror=closed.append, followlinks=True):
        path = Path(folder)
        folders[:] = [name for name in sorted(folders) if is_new(path / name)]
        yield from (url_of(path / name) for name in sorted(names) if is_new(path / name))
    yield from (url_of(error.filename) for error in closed)


def list_files(base: str) -> Iterator[FileInfo]:
    """Yield the files below `base`, a page of them in memory, sorted by page."""
    root, prefix = root_of(base), key_of(base)
    with _ingest_errors(f"{strip_credentials(base)} can't be listed"):
        for page in obstore.list(object_store(root), prefix=prefix or None):
            for meta in sorted(page, key=lambda meta: meta["path"]):
                yield FileInfo.from_meta(f"{root}/{quote(meta['path'])}", meta)
