"""Chunks of fields: fetched together, decoded side by side, kept while there is room.

What is read is counted, so that a search can say what it cost.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from obstore.store import AzureStore, GCSStore, S3Store
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, ObjectStore

from l2view.hierarchy import reads_sync
from l2view.meta.cache import CACHE
from l2view.meta.decode import POOL, decode
from l2view.meta.disk import FOLDER
from l2view.meta.footprints import bounds
from l2view.meta.schema import Field
from l2view.meta.zones import Zone, is_orderable, zone_of, zone_of_bounds

SHARE = 2
"""A field whose values take more than one part in so many of the cache is not kept in it: a scan
of it would push out all else, and itself before it comes round again."""


COUNT = "count(Int64(1))"
"""The column of counts."""

KEPT: set[tuple[str, ...]] = set()
"""Folders of object stores of which chunks may be kept; of others nobody asks for ETags."""


@dataclass
class Tally:
    """What reading cost.

    Attributes
    ----------
    requests
        The keys that were asked for.
    nbytes
        The bytes that came.
    decoded
        The chunks that were decoded.
    kept
        The chunks that were there already.
    runs
        The runs of rows that a scan decided about.
    ruled_out
        How many of them were left out, by what told.
    seconds
        Time by what it was spent on; threads side by side add up.
    """

    requests: int = 0
    nbytes: int = 0
    decoded: int = 0
    kept: int = 0
    runs: int = 0
    ruled_out: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(
        self,
        stage: str,
        began: float,
        *,
        requests: int = 0,
        nbytes: int = 0,
        decoded: int = 0,
        kept: int = 0,
    ) -> None:
        """Count what one stage did since `began`, by `time.perf_counter`."""
        with self._lock:
            self.requests += requests
            self.nbytes += nbytes
            self.decoded += decoded
            self.kept += kept
            spent = self.seconds.get(stage, 0.0)
            self.seconds[stage] = spent + time.perf_counter() - began

    def rule_out(self, runs: int, by: Mapping[str, int]) -> None:
        """Count runs of rows, and those that were left out."""
        with self._lock:
            self.runs += runs
            for name, count in by.items():
                self.ruled_out[name] = self.ruled_out.get(name, 0) + count


type What = Literal["values", "bounds", "counts", "zone"]
"""What is kept of a chunk."""


def counts_of(field: Field, values: pa.Array, inside: int) -> pa.RecordBatch:
    """Return the values among the first `inside`, and in `COUNT` how many there are of each."""
    found = pc.value_counts(values[:inside])
    return pa.RecordBatch.from_arrays(found.flatten(), names=[field.name, COUNT])


MADE: Mapping[What, Callable[[Field, pa.Array, int], Any]] = {
    "values": lambda field, values, inside: values,
    "bounds": lambda field, values, inside: bounds(values, field),
    "counts": counts_of,
}
"""What is made of a chunk's values, of which those inside the field are the first."""


class Chunks:
    """Decoded chunks of the fields of one store.

    Parameters
    ----------
    store
        The Zarr store.
    snapshot
        The Icechunk snapshot that it shows, None where its chunks may change.
    tally
        Where the cost is counted.
    """

    def __init__(self, store: Store, snapshot: str | None = None, tally: Tally | None = None):
        self.store = store
        self.snapshot = snapshot
        self.tally = Tally() if tally is None else tally
        self._listed: dict[str, dict[str, str | None]] = {}
        self._held: dict[tuple[str, int], pa.Array] = {}

    def read(
        self,
        wanted: Sequence[tuple[Field, int]],
        learn: Collection[str] = (),
        *,
        scanned: bool = True,
    ) -> list[pa.Array]:
        """Return chunks by field and number, each as long as a whole one.

        Parameters
        ----------
        wanted
            Fields and numbers.
        learn
            The names of fields whose zones are remembered.
        scanned
            Whether they are gone through from first to last, and few of the cache's worth.
        """
        return self._made(wanted, "values", learn, scanned)

    def bounds(self, wanted: Sequence[tuple[Field, int]]) -> list[NDArray[np.float64]]:
        """Return the rectangles around the footprints of chunks (see `footprints.bounds`).

        The footprints are held until it is asked again: those of some rows are wanted next.
        """
        self._held.clear()
        return self._made(wanted, "bounds", [field.name for field, _ in wanted])

    def counts(self, wanted: Sequence[tuple[Field, int]]) -> list[pa.RecordBatch]:
        """Return the values that rows of chunks have, and in `COUNT` how many rows each."""
        return self._made(wanted, "counts", ())

    def zones(self, wanted: Sequence[tuple[Field, int]]) -> list[Zone | None]:
        """Return what is known of chunks that were read before, None of those that weren't."""
        keys = self._keys(wanted)
        return [_kept(key, "zone", one) for key, one in zip(keys, wanted, strict=True)]

    def _made(
        self,
        wanted: Sequence[tuple[Field, int]],
        what: What,
        learn: Collection[str],
        scanned: bool = True,
    ) -> list[Any]:
        """Return what is kept by the name `what` of each chunk, made where it isn't."""
        began = time.perf_counter()
        keys = self._keys(wanted)
        found = [_kept(key, what, one) for key, one in zip(keys, wanted, strict=True)]
        if what == "values" and self._held:
            at = [(one.path, number) for one, number in wanted]
            found = [
                self._held.get(key) if one is None else one
                for key, one in zip(at, found, strict=True)
            ]
        missing = [index for index, value in enumerate(found) if value is None]
        # What it is made of may be there already.
        sources = (
            {} if what == "values" else {i: _kept(keys[i], "values", wanted[i]) for i in missing}
        )
        unread = [index for index in missing if sources.get(index) is None]
        self.tally.add("cache", began, kept=len(wanted) - len(unread))
        raw: dict[int, Any] = {}
        # A store that answers at once is asked by the threads that decode.
        together = bool(unread) and not reads_sync(self.store)
        if together:
            began = time.perf_counter()
            names = [wanted[i][0].chunk_key(wanted[i][1]) for i in unread]
            if place := _object_store(self.store):
                got, tags = _fetch_objects(self.store, names)
                for i, name, tag in zip(unread, names, tags, strict=True):
                    if tag is not None:
                        keys[i] = ((*place, name, tag), wanted[i][0].fingerprint, wanted[i][1])
                        KEPT.add((*place, name.rpartition("/")[0]))
            else:
                got = fetch(self.store, names)
            raw.update(zip(unread, got, strict=True))
            self._count_fetched(began, got)

        def work(index: int) -> None:
            (of, number), key = wanted[index], keys[index]
            began = time.perf_counter()
            values = sources.get(index)
            if values is None:
                if not together:
                    raw[index] = fetch(self.store, [of.chunk_key(number)])[0]
                    self._count_fetched(began, [raw[index]])
                    began = time.perf_counter()
                values = decode(of, raw.pop(index))
            if what == "bounds":
                self._held[of.path, number] = values
            inside = _inside(of, number)
            made = MADE[what](of, values, inside)
            share = made.nbytes * _chunk_count(of) * SHARE
            if key is not None and (not scanned or share <= CACHE.budget):
                if what == "values" and not pa.types.is_primitive(of.type):
                    # A copy of the right size: what it was decoded into may be far larger.
                    made = pa.concat_arrays([made, made[:0]], memory_pool=POOL)
                CACHE.put(_name(key, what, wanted[index]), made, made.nbytes)
            if key is not None and what == "values" and (not scanned or share <= FOLDER.budget):
                FOLDER.put(_name(key, what, wanted[index]), made)
            if key is not None and of.name in learn:
                zone = None
                if what == "bounds":
                    zone = zone_of_bounds(made[:inside])
                elif is_orderable(of.type):
                    zone = zone_of(of, values[:inside])
                if zone is not None:
                    CACHE.put(_name(key, "zone", wanted[index]), zone, 0)
            found[index] = made
            self.tally.add("decode", began, decoded=index in unread)

        if missing:
            _each(work, missing)
        return found

    def _count_fetched(self, began: float, raw: Sequence[Any]) -> None:
        nbytes = sum(0 if part is None else len(part) for part in raw)
        self.tally.add("fetch", began, requests=len(raw), nbytes=nbytes)

    def _keys(self, wanted: Sequence[tuple[Field, int]]) -> list[tuple[Hashable, ...] | None]:
        """Return what tells each chunk from any other, None where nothing does."""
        if self.snapshot is not None:
            return [(self.snapshot, one.fingerprint, number) for one, number in wanted]
        tags = self._tags([one.chunk_key(number) for one, number in wanted])
        return [
            None if tag is None else (tag, one.fingerprint, number)
            for tag, (one, number) in zip(tags, wanted, strict=True)
        ]

    def _tags(self, keys: Sequence[str]) -> list[tuple[Any, ...] | None]:
        """Return what the store says of each key that changes when its bytes do."""
        if isinstance(self.store, LocalStore):
            return [tag_of_file(self.store, key) for key in keys]
        place = _object_store(self.store)
        if place is None:
            return [None] * len(keys)
        for folder in {key.rpartition("/")[0] for key in keys} - self._listed.keys():
            if (*place, folder) not in KEPT and FOLDER.path is None:  # there is nothing to ask of
                self._listed[folder] = {}
                continue
            try:
                pages = obstore.list(self.store.store, f"{folder}/")  # type: ignore[attr-defined]
                found = {one["path"]: one["e_tag"] for page in pages for one in page}
            except (obstore.exceptions.BaseError, OSError):  # who may read may not list
                found = dict.fromkeys(key for key in keys if key.startswith(f"{folder}/"))
            self._listed[folder] = found
        listed = [self._listed[key.rpartition("/")[0]] for key in keys]
        return [
            None if tags.get(key) is None else (*place, key, tags[key])
            for key, tags in zip(keys, listed, strict=True)
        ]


def _inside(field: Field, number: int) -> int:
    """Return how many rows of a chunk there are."""
    return min(field.length - number * field.chunk_length, field.chunk_length)


def _name(key: tuple[Hashable, ...], what: What, one: tuple[Field, int]) -> tuple[Hashable, ...]:
    """Return by what something is kept of a chunk."""
    # A chunk that has more rows later is the same chunk, of which other things are known.
    return (*key, what, _inside(*one)) if what in ("counts", "zone") else (*key, what)


def _kept(key: tuple[Hashable, ...] | None, what: What, one: tuple[Field, int]) -> Any:
    """Return what is kept of a chunk, None where it isn't."""
    if key is None:
        return None
    name = _name(key, what, one)
    found = CACHE.get(name)
    if found is not None or what != "values":
        return found
    array = FOLDER.get(name)
    if array is not None:
        CACHE.put(name, array, array.nbytes)
    return array


def _chunk_count(field: Field) -> int:
    return -(-field.length // field.chunk_length)


def _object_store(store: Store) -> tuple[str, ...] | None:
    """Return what tells an object store from any other, None where nothing does."""
    inner = getattr(store, "store", None) if isinstance(store, ObjectStore) else None
    if not isinstance(inner, S3Store | GCSStore | AzureStore):
        return None
    said = {"prefix": inner.prefix, **inner.config}
    names = ("prefix", "bucket", "container_name", "account_name", "endpoint", "region")
    return (type(inner).__name__, *(str(said.get(name)) for name in names))


def _fetch_objects(store: Any, keys: Sequence[str]) -> tuple[list[Any], list[str | None]]:
    """Return the stored bytes of `keys`, and what tells them from others; None for none."""

    async def one(key: str) -> tuple[Any, str | None]:
        try:
            found = await obstore.get_async(store.store, key)
            return memoryview(await found.bytes_async()), found.meta["e_tag"]
        except FileNotFoundError:
            return None, None

    async def gather() -> list[tuple[Any, str | None]]:
        return await asyncio.gather(*(one(key) for key in keys))

    found = sync(gather())
    return [part for part, _ in found], [tag for _, tag in found]


def fetch(store: Store, keys: Iterable[str]) -> list[Any]:
    """Return the stored bytes of `keys`, None where there are none."""
    keys = list(keys)
    prototype = default_buffer_prototype()
    if not keys:
        return []
    if reads_sync(store):
        found = [store.get_sync(key, prototype=prototype) for key in keys]
    else:

        async def gather() -> list[Any]:
            return await asyncio.gather(*(store.get(key, prototype) for key in keys))

        found = sync(gather())
    return [None if buffer is None else memoryview(buffer.as_numpy_array()) for buffer in found]


def tag_of_file(store: LocalStore, key: str) -> tuple[Any, ...]:
    """Return what tells a local file from what it was before, and from any other."""
    path = Path(store.root) / key
    try:
        said = path.stat()
    except OSError:
        return (str(path),)
    return (str(path), said.st_ino, said.st_mtime_ns, said.st_size)


def side_by_side[One, Made](work: Callable[[One], Made], parts: Sequence[One]) -> list[Made]:
    """Return what is made of each part of an index; a store far away is asked of all at once."""
    if len(parts) == 1:
        return [work(parts[0])]
    with ThreadPoolExecutor(len(parts), thread_name_prefix="l2view-index") as pool:
        return list(pool.map(work, parts))


def _each(work: Callable[[int], None], tasks: Sequence[int]) -> None:
    """Do all of the tasks, several at a time where there are several."""
    if len(tasks) == 1:
        work(tasks[0])
        return
    for _ in _pool(os.getpid()).map(work, tasks):
        pass


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Return the threads that decode; a forked process has none of its parent's."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="l2view-decode")
