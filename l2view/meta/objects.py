"""The objects of an object store, told from what they were by their ETags.

What is kept of an object holds as long as its ETag is what it was. Few objects are asked for on
that condition, and come only where it isn't (RFC 9110, 13.1.2); of many a folder is listed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import obstore
import pyarrow as pa
from obstore.exceptions import BaseError, NotModifiedError
from obstore.store import AzureStore, GCSStore, S3Store
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import ObjectStore

from l2view.arrays.cache import CACHE
from l2view.meta.disk import FOLDER

KEPT: set[tuple[str, ...]] = set()
"""Folders of object stores of which something is kept in memory."""


class Unchanged:
    """An object that is what it was."""


type Place = tuple[str, ...]
"""What tells an object store from any other."""


class Objects:
    """The objects of one store.

    Parameters
    ----------
    store
        The store.
    place
        What tells it from any other.
    """

    def __init__(self, store: Any, place: Place) -> None:
        self.store = store
        self.place = place
        self._listed: dict[str, dict[str, str | None]] = {}

    def remembered(self, key: str) -> str | None:
        """Return the ETag that an object had when it was last asked for, None for none."""
        name = (*self.place, key, "tag")
        found = CACHE.get(name)
        if found is None and (kept := FOLDER.get(name)) is not None:
            found = kept[0].as_py()
        return None if found is None else str(found)

    def keeps(self, keys: Iterable[str]) -> None:
        """Say that something is kept of objects."""
        KEPT.update((*self.place, _folder(key)) for key in keys)

    def listed(self, keys: Sequence[str]) -> list[str | None]:
        """Return the ETags of objects, None of those in folders of which nothing is kept."""
        for folder in {_folder(key) for key in keys} - self._listed.keys():
            known = (*self.place, folder) in KEPT
            self._listed[folder] = self._list(folder) if known else {}
        return [self._listed[_folder(key)].get(key) for key in keys]

    def _list(self, folder: str) -> dict[str, str | None]:
        try:
            pages = obstore.list(self.store, f"{folder}/")
            return {one["path"]: one["e_tag"] for page in pages for one in page}
        except (BaseError, OSError):  # who may read may not list
            return {}

    def fetch(
        self, keys: Sequence[str], tags: Sequence[str | None]
    ) -> list[tuple[Any, str | None]]:
        """Return the bytes and the ETags of objects, None where there are none.

        Parameters
        ----------
        keys
            Their keys.
        tags
            The ETags of those that are kept; where they are what they were, `Unchanged` stands
            for the bytes.
        """

        async def one(key: str, tag: str | None) -> tuple[Any, str | None]:
            try:
                options: Any = {} if tag is None else {"if_none_match": tag}
                found = await obstore.get_async(self.store, key, options=options)
                return memoryview(await found.bytes_async()), found.meta["e_tag"]
            except NotModifiedError:
                return Unchanged, tag
            except FileNotFoundError:
                return None, None

        async def gather() -> list[tuple[Any, str | None]]:
            return await asyncio.gather(*map(one, keys, tags))

        found: list[tuple[Any, str | None]] = sync(gather())
        for key, (raw, tag) in zip(keys, found, strict=True):
            if tag is not None and raw is not Unchanged:
                self.keeps([key])
                CACHE.put((*self.place, key, "tag"), tag, 0)
                FOLDER.put((*self.place, key, "tag"), pa.array([tag]))
        return found


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def objects_of(store: Store) -> Objects | None:
    """Return the objects of a Zarr store, None where nothing tells it from any other."""
    inner = getattr(store, "store", None) if isinstance(store, ObjectStore) else None
    if not isinstance(inner, S3Store | GCSStore | AzureStore):
        return None
    said = {"prefix": inner.prefix, **inner.config}
    names = ("prefix", "bucket", "container_name", "account_name", "endpoint", "region")
    return Objects(inner, (type(inner).__name__, *(str(said.get(name)) for name in names)))
