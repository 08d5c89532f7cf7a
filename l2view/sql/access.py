"""Which stores beside its own a query may read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from l2view.stores.urls import is_url

type AllowStores = bool | str | Iterable[str]
"""Which stores beside its own a query may name: all, or those at and below some paths or URLs."""

UNSAFE = re.compile(r"[\\\s\x00-\x1f\x7f]")
"""What others may read otherwise in a URL than it is checked here."""


def is_allowed(location: str, allowed: AllowStores) -> bool:
    """Whether a query may read the store at a path or URL."""
    if isinstance(allowed, bool):
        return allowed
    prefixes = [allowed] if isinstance(allowed, str) else allowed
    return any(_is_below(location, prefix) for prefix in prefixes)


def _is_below(location: str, prefix: str) -> bool:
    """Whether a path or URL is `prefix`, or lies below it."""
    path, parent = _local(location), _local(prefix)
    if path is not None and parent is not None:
        return path == parent or parent in path.parents
    if path is not None or parent is not None or not is_url(location):
        return False
    # What is checked must be what is opened, so nothing is left to be resolved or decoded.
    decoded = unquote(unquote(location))
    if UNSAFE.search(decoded) or {"..", "."} & set(urlsplit(decoded).path.split("/")):
        return False
    return location.rstrip("/") == prefix.rstrip("/") or location.startswith(
        f"{prefix.rstrip('/')}/"
    )


def _local(location: str) -> Path | None:
    """Local path of a path or URL, links resolved; None for anything else."""
    if location.startswith("file://"):
        location = unquote(urlsplit(location).path)
    if is_url(location) or "\0" in location:
        return None
    try:
        return Path(location).expanduser().resolve()
    except (RuntimeError, OSError):  # of a user that there isn't, of links in a circle
        return None


def looks_like_store(text: str) -> bool:
    """Whether a text is a URL, or the path of a file or folder."""
    local = _local(text)
    return bool(is_url(text)) or (local is not None and local.exists())
