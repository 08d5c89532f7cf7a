"""The objects of an object store, told from what they were by their ETags.

Few objects are asked for on the condition that their ETag is another (RFC 9110, 13.1.2); of many
a folder is listed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import obstore
import pyarrow as pa
from obstore.exceptions import BaseError, NotModifiedError
from obstore.store import AzureStore, GCSStore, S3Store
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import ObjectStore

from l2view.cache import CACHE
from l2view.meta.disk import FOLDER

CACHED_FOLDERS: set[tuple[str, ...]] = set()
"""Folders of object stores of which something is cached in memory."""


class Unchanged:
    """An object that is what it was."""


class Objects:
    """The objects of one store, whose `identity` is its kind, bucket, prefix, endpoint, region."""

    def __init__(self, store: Any, identity: tuple[str, ...]) -> None:
        self.store = store
        self.identity = identity
        self._etags: dict[str, dict[str, str | None]] = {}

    def cached_etag(self, key: str) -> str | None:
        """ETag of the last answer for an object, None for none."""
        name = (*self.identity, key, "tag")
        etag = CACHE.get(name)
        if etag is None and (stored := FOLDER.get(name)) is not None:
            etag = stored[0].as_py()
        return None if etag is None else str(etag)

    def mark_cached(self, keys: Iterable[str]) -> None:
        """Remember the folders of objects of which something is cached."""
        CACHED_FOLDERS.update((*self.identity, _folder(key)) for key in keys)

    def list_etags(self, keys: Sequence[str]) -> list[str | None]:
        """List the ETags of objects, None in folders of which nothing is cached."""
        for folder in {_folder(key) for key in keys} - self._etags.keys():
            self._etags[folder] = {}
            if (*self.identity, folder) in CACHED_FOLDERS:
                with contextlib.suppress(BaseError, OSError):  # who may read may not list
                    pages = obstore.list(self.store, f"{folder}/")
                    items = {item["path"]: item["e_tag"] for page in pages for item in page}
                    self._etags[folder] = items
        return [self._etags[_folder(key)].get(key) for key in keys]

    def fetch(
        self, keys: Sequence[str], tags: Sequence[str | None]
    ) -> list[tuple[Any, str | None]]:
        """Fetch the bytes and the ETags of objects, None where there are none.

        `tags` are the ETags of those that are cached; where one is the same today, `Unchanged`
        stands for the bytes.
        """

        async def get(key: str, tag: str | None) -> tuple[Any, str | None]:
            try:
                options: Any = {} if tag is None else {"if_none_match": tag}
                response = await obstore.get_async(self.store, key, options=options)
                return memoryview(await response.bytes_async()), response.meta["e_tag"]
            except NotModifiedError:
                return Unchanged, tag
            except FileNotFoundError:
                return None, None

        async def gather() -> list[tuple[Any, str | None]]:
            return await asyncio.gather(*map(get, keys, tags))

        responses: list[tuple[Any, str | None]] = sync(gather())
        for key, (raw, tag) in zip(keys, responses, strict=True):
            if tag is not None and raw is not Unchanged:
                self.mark_cached([key])
                CACHE.put((*self.identity, key, "tag"), tag, 0)
                FOLDER.put((*self.identity, key, "tag"), pa.array([tag]))
        return responses


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def objects_of(store: Store) -> Objects | None:
    """Return the objects of a Zarr store, None where nothing tells it from any other."""
    inner = getattr(store, "store", None) if isinstance(store, ObjectStore) else None
    if not isinstance(inner, S3Store | GCSStore | AzureStore):
        return None
    settings = {"prefix": inner.prefix, **inner.config}
    names = ("prefix", "bucket", "container_name", "account_name", "endpoint", "region")
    return Objects(inner, (type(inner).__name__, *(str(settings.get(name)) for name in names)))
