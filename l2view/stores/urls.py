"""URLs of files: the store that they name, and the key in it."""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote, urlsplit

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(text: str) -> bool:
    """Return whether a text is a URL and not a path."""
    return _SCHEME.match(text) is not None


def url_of(path: str | os.PathLike[str]) -> str:
    """Return the URL of a path or URL."""
    text = os.fspath(path)
    if is_url(text):
        return text
    # Not resolved: a link's own name is what its owner keeps in place.
    path = os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111
    return f"file://{quote(os.fsencode(path))}"


def local_path(text: str) -> str:
    """Return the path that a ``file://`` URL names; anything else as it is."""
    return unquote(urlsplit(text).path) if text.startswith("file://") else text


def root_of(url: str) -> str:
    """Return the part of a URL that names a bucket, a server or a disk."""
    split = urlsplit(url)
    return f"{split.scheme}://{split.netloc}"


def key_of(url: str) -> str:
    """Return the key of a file in its store."""
    return unquote(urlsplit(url).path).lstrip("/")


def unquote_url(url: str) -> str:
    """Return a URL with its key as it is, as VirtualiZarr's parsers take it."""
    return f"{root_of(url)}/{key_of(url)}"


def common_folders(urls: set[str]) -> dict[str, str]:
    """Return, for each store, the deepest folder that all of its `urls` lie in.

    Examples
    --------
    >>> common_folders({"s3://b/x/1.nc", "s3://b/x/y/2.nc", "file:///data/3.nc"})
    {'file://': 'file:///data/', 's3://b': 's3://b/x/'}
    """
    folders: dict[str, list[list[str]]] = {}
    for url in urls:
        names = urlsplit(url).path.lstrip("/").split("/")[:-1]
        folders.setdefault(root_of(url), []).append(names)
    common = {}
    for root, paths in sorted(folders.items()):
        shared = os.path.commonprefix(paths)  # noqa: RUF071 (of lists, name by name)
        common[root] = "/".join([root, *shared, ""])
    return common
