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
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from l2view.arrays.cache import CACHE
from l2view.limits import limits
from l2view.meta.decode import POOL, decode
from l2view.meta.disk import FOLDER
from l2view.meta.footprints import bounds
from l2view.meta.objects import Unchanged, objects_of
from l2view.meta.schema import Field
from l2view.meta.zones import Zone, is_orderable, zone_of, zone_of_bounds
from l2view.stores.hierarchy import reads_sync

SHARE = 2
"""A field whose values take more than one part in so many of the cache is not kept in it: a scan
of it would push out all else, and itself before it comes round again."""


COUNT = "count(Int64(1))"
"""The column of counts."""


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

    def __reduce__(self) -> tuple[type[Tally], tuple[()]]:
        return Tally, ()  # what was counted stays in its process

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

    def count_fetched(self, began: float, raw: Sequence[Any]) -> None:
        """Count what was asked of a store since `began`; None came where there was nothing."""
        nbytes = sum(0 if part is None else len(part) for part in raw)
        self.add("fetch", began, requests=len(raw), nbytes=nbytes)

    def rule_out(self, runs: int, by: Mapping[str, int]) -> None:
        """Count runs of rows, and those that were left out."""
        with self._lock:
            self.runs += runs
            for name, count in by.items():
                self.ruled_out[name] = self.ruled_out.get(name, 0) + count


type Derived = Literal["values", "bounds", "counts", "zone"]
"""What is kept of a chunk."""


def counts_of(field: Field, values: pa.Array, inside: int) -> pa.RecordBatch:
    """Return the values among the first `inside`, and in `COUNT` how many there are of each."""
    found = pc.value_counts(values[:inside])
    return pa.RecordBatch.from_arrays(found.flatten(), names=[field.name, COUNT])


DERIVATIONS: Mapping[Derived, Callable[[Field, pa.Array, int], Any]] = {
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
        self._objects = objects_of(store)
        self._tags: dict[str, str] = {}
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
        return self._derive(wanted, "values", learn, scanned)

    def bounds(self, wanted: Sequence[tuple[Field, int]]) -> list[NDArray[np.float64]]:
        """Return the rectangles around the footprints of chunks (see `footprints.bounds`).

        The footprints are held until it is asked again: those of some rows are wanted next.
        """
        self._held.clear()
        return self._derive(wanted, "bounds", [field.name for field, _ in wanted])

    def counts(self, wanted: Sequence[tuple[Field, int]]) -> list[pa.RecordBatch]:
        """Return the values that rows of chunks have, and in `COUNT` how many rows each."""
        return self._derive(wanted, "counts", ())

    def zones(self, wanted: Sequence[tuple[Field, int]]) -> list[Zone | None]:
        """Return what is known of chunks that were read before, None of those that weren't."""
        keys = self._keys(wanted)
        return [_cached(key, "zone", one) for key, one in zip(keys, wanted, strict=True)]

    def _derive(
        self,
        wanted: Sequence[tuple[Field, int]],
        what: Derived,
        learn: Collection[str],
        scanned: bool = True,
    ) -> list[Any]:
        """Return what is kept by the name `what` of each chunk, made where it isn't."""
        began = time.perf_counter()
        keys, raw = self._revalidate(wanted, what)
        found = [_cached(key, what, one) for key, one in zip(keys, wanted, strict=True)]
        if what == "values" and self._held:
            at = [(one.path, number) for one, number in wanted]
            found = [
                self._held.get(key) if one is None else one
                for key, one in zip(at, found, strict=True)
            ]
        missing = [index for index, value in enumerate(found) if value is None]
        # What it is made of may be there already.
        sources = (
            {} if what == "values" else {i: _cached(keys[i], "values", wanted[i]) for i in missing}
        )
        unread = [index for index in missing if sources.get(index) is None]
        self.tally.add("cache", began, kept=len(wanted) - len(unread))
        # A store that answers at once is asked by the threads that decode.
        if not reads_sync(self.store) and (rest := [i for i in unread if i not in raw]):
            began = time.perf_counter()
            got = fetch(self.store, [wanted[i][0].chunk_key(wanted[i][1]) for i in rest])
            raw.update(zip(rest, got, strict=True))
            self.tally.count_fetched(began, got)

        def work(index: int) -> None:
            (of, number), key = wanted[index], keys[index]
            began = time.perf_counter()
            values = sources.get(index)
            if values is None:
                if index not in raw:
                    raw[index] = fetch(self.store, [of.chunk_key(number)])[0]
                    self.tally.count_fetched(began, [raw[index]])
                    began = time.perf_counter()
                values = decode(of, raw.pop(index))
            if what == "bounds":
                self._held[of.path, number] = values
            inside = _rows_inside(of, number)
            made = DERIVATIONS[what](of, values, inside)
            share = made.nbytes * _chunk_count(of) * SHARE
            if key is not None and (not scanned or share <= CACHE.budget):
                if what == "values" and not pa.types.is_primitive(of.type):
                    # A copy of the right size: what it was decoded into may be far larger.
                    made = pa.concat_arrays([made, made[:0]], memory_pool=POOL)
                CACHE.put(_cache_key(key, what, wanted[index]), made, made.nbytes)
            if key is not None and what == "values" and (not scanned or share <= FOLDER.budget):
                FOLDER.put(_cache_key(key, what, wanted[index]), made)
            if key is not None and of.name in learn:
                zone = None
                if what == "bounds":
                    zone = zone_of_bounds(made[:inside])
                elif is_orderable(of.type):
                    zone = zone_of(of, values[:inside])
                if zone is not None:
                    CACHE.put(_cache_key(key, "zone", wanted[index]), zone, 0)
            found[index] = made
            self.tally.add("decode", began, decoded=index in unread)

        if missing:
            _run_all(work, missing)
        return found

    def _keys(self, wanted: Sequence[tuple[Field, int]]) -> list[Key | None]:
        """Return what tells each chunk from any other, None where nothing does."""
        names = [one.chunk_key(number) for one, number in wanted]
        tags: list[Hashable | None] = [None] * len(names)
        if self.snapshot is not None:
            tags = [self.snapshot] * len(names)
        elif isinstance(self.store, LocalStore):
            tags = [tag_of_file(self.store, name) for name in names]
        elif self._objects is not None:
            tags = self._full_tags(names, self._objects.listed(names))
        return [_key(tag, one) for tag, one in zip(tags, wanted, strict=True)]

    def _full_tags(self, names: Sequence[str], tags: Sequence[str | None]) -> list[Hashable | None]:
        """Return what tells objects with some ETags from any others."""
        assert self._objects is not None
        place = self._objects.place
        return [
            None if tag is None else (*place, name, tag)
            for name, tag in zip(names, tags, strict=True)
        ]

    def _revalidate(
        self, wanted: Sequence[tuple[Field, int]], what: Derived
    ) -> tuple[list[Key | None], dict[int, Any]]:
        """Return what tells each chunk from any other, and bytes that came with that by index."""
        if self.snapshot is not None or self._objects is None:
            return self._keys(wanted), {}
        names = [one.chunk_key(number) for one, number in wanted]
        tags = [self._tags.get(name) or self._objects.remembered(name) for name in names]
        keys = [
            _key(tag, one) for tag, one in zip(self._full_tags(names, tags), wanted, strict=True)
        ]
        kept = [
            _cached(key, what, one) is not None or _cached(key, "values", one) is not None
            for key, one in zip(keys, wanted, strict=True)
        ]
        held = [what == "values" and (one.path, number) in self._held for one, number in wanted]
        asked = [
            i for i, name in enumerate(names) if not (held[i] or (kept[i] and name in self._tags))
        ]
        if sum(kept[i] for i in asked) > limits().conditional_requests:
            self._objects.keeps(names[i] for i in asked if kept[i])
            return self._keys(wanted), {}
        if not asked:
            return keys, {}
        began = time.perf_counter()
        conditions = [tags[i] if kept[i] else None for i in asked]
        got = self._objects.fetch([names[i] for i in asked], conditions)
        self.tally.count_fetched(began, [None if part is Unchanged else part for part, _ in got])
        raw = {}
        for i, (part, tag) in zip(asked, got, strict=True):
            if part is not Unchanged:
                raw[i] = part
            if tag is not None:
                self._tags[names[i]] = tag
            keys[i] = _key(self._full_tags([names[i]], [tag])[0], wanted[i])
        return keys, raw


type Key = tuple[Hashable, ...]
"""What tells a chunk from any other, and from what it was."""


def _key(tag: Hashable | None, one: tuple[Field, int]) -> Key | None:
    """Return what tells a chunk from any other by what tells its bytes, None where nothing does."""
    return None if tag is None else (tag, one[0].fingerprint, one[1])


def _rows_inside(field: Field, number: int) -> int:
    """Return how many rows of a chunk there are."""
    return min(field.length - number * field.chunk_length, field.chunk_length)


def _cache_key(key: Key, what: Derived, one: tuple[Field, int]) -> Key:
    """Return by what something is kept of a chunk."""
    # A chunk that has more rows later is the same chunk, of which other things are known.
    return (*key, what, _rows_inside(*one)) if what in ("counts", "zone") else (*key, what)


def _cached(key: Key | None, what: Derived, one: tuple[Field, int]) -> Any:
    """Return what is kept of a chunk, None where it isn't."""
    if key is None:
        return None
    name = _cache_key(key, what, one)
    found = CACHE.get(name)
    if found is not None or what != "values":
        return found
    array = FOLDER.get(name)
    if array is not None:
        CACHE.put(name, array, array.nbytes)
    return array


def _chunk_count(field: Field) -> int:
    return -(-field.length // field.chunk_length)


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


def _run_all(work: Callable[[int], None], tasks: Sequence[int]) -> None:
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
