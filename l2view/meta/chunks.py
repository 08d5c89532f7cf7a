"""Chunks of fields: fetched together, decoded side by side, cached while there is room.

What is read is counted, so that a search can say what it cost.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.storage import LocalStore

from l2view.arrays.threads import thread_pool
from l2view.cache import CACHE
from l2view.limits import limits
from l2view.meta.decode import POOL, decode
from l2view.meta.disk import FOLDER
from l2view.meta.footprints import bounds
from l2view.meta.objects import Unchanged, objects_of
from l2view.meta.schema import Field
from l2view.meta.zones import Zone, is_orderable, zone_of, zone_of_bounds
from l2view.stores.hierarchy import get_values, reads_sync

SHARE = 2
"""A field whose values take more than one part in so many of the cache is not kept in it: a scan
of it would push out all else, and itself before it comes round again."""


COUNT = "count(Int64(1))"  # the column of counts


@dataclass
class Tally:
    """What reading cost."""

    # The keys that were asked for, and the bytes that came.
    requests: int = 0
    nbytes: int = 0
    # The chunks that were decoded, and those that a cache had.
    decoded: int = 0
    cached: int = 0
    # The runs of rows that a scan decided about, and how many of them were left out, by the index
    # or zone map that ruled them out.
    runs: int = 0
    ruled_out: Counter[str] = field(default_factory=Counter)
    # Time by what it was spent on; threads side by side add up.
    seconds: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[Tally], tuple[()]]:
        return Tally, ()  # what was counted stays in its process

    def add(self, stage: str, start: float, *, decoded: int = 0, cached: int = 0) -> None:
        """Count what one stage did since `start`, by `time.perf_counter`."""
        with self._lock:
            self.decoded += decoded
            self.cached += cached
            self.seconds[stage] = self.seconds.get(stage, 0) + time.perf_counter() - start

    def count_fetched(self, start: float, raw: Sequence[Any]) -> None:
        """Count what was asked of a store since `start`; None came where there was nothing."""
        with self._lock:
            self.requests += len(raw)
            self.nbytes += sum(0 if buffer is None else len(buffer) for buffer in raw)
        self.add("fetch", start)

    def rule_out(self, runs: int, by: Mapping[str, int]) -> None:
        """Count runs of rows, and those that were left out."""
        with self._lock:
            self.runs += runs
            self.ruled_out.update(by)


type Derived = Literal["values", "bounds", "counts", "zone"]  # what is cached of a chunk
type ChunkRef = tuple[Field, int]  # a field and the number of one of its chunks


def counts_of(field: Field, values: pa.Array, inside: int) -> pa.RecordBatch:
    """Count each value among the first `inside`: the values, and in `COUNT` their numbers."""
    counts = pc.value_counts(values[:inside])
    return pa.RecordBatch.from_arrays(counts.flatten(), names=[field.name, COUNT])


DERIVATIONS: Mapping[Derived, Callable[[Field, pa.Array, int], Any]] = {
    "values": lambda field, values, inside: values,
    "bounds": lambda field, values, inside: bounds(values, field),
    "counts": counts_of,
}
"""What is made of a chunk's values, of which those inside the field are the first."""


class Chunks:
    """Decoded chunks of the fields of one store.

    `snapshot` is the Icechunk snapshot that it shows, None where its chunks may change.
    """

    def __init__(self, store: Store, snapshot: str | None = None, tally: Tally | None = None):
        self.store = store
        self.snapshot = snapshot
        self.tally = Tally() if tally is None else tally
        self._objects = objects_of(store)
        self._tags: dict[str, str] = {}
        self._footprints: dict[tuple[str, int], pa.Array] = {}

    def read(
        self, refs: Sequence[ChunkRef], learn: Collection[str] = (), *, scanned: bool = True
    ) -> list[pa.Array]:
        """Read chunks, each of full length, also at the end of its field.

        The zones of the fields called `learn` are remembered. Where fields are `scanned` from start
        to end, only small ones are worth caching.
        """
        return self._derive(refs, "values", learn, scanned)

    def bounds(self, refs: Sequence[ChunkRef]) -> list[NDArray[np.float64]]:
        """Bounds of the footprints of chunks (see `footprints.bounds`).

        The footprints stay in memory until the next call: a search reads those of some rows next.
        """
        self._footprints.clear()
        return self._derive(refs, "bounds", [field.name for field, _ in refs])

    def counts(self, refs: Sequence[ChunkRef]) -> list[pa.RecordBatch]:
        """Count each value of chunks: the values, and in `COUNT` their numbers of rows."""
        return self._derive(refs, "counts", ())

    def zones(self, refs: Sequence[ChunkRef]) -> list[Zone | None]:
        """Zones of chunks that were read before, None for the others."""
        return [_lookup(key, "zone", ref) for key, ref in zip(self._keys(refs), refs, strict=True)]

    def _derive(
        self,
        refs: Sequence[ChunkRef],
        derived: Derived,
        learn: Collection[str],
        scanned: bool = True,
    ) -> list[Any]:
        """Take `derived` of each chunk from a cache, or compute it."""
        start = time.perf_counter()
        keys, raw = self._revalidate(refs, derived)
        results = [_lookup(key, derived, ref) for key, ref in zip(keys, refs, strict=True)]
        if derived == "values":
            results = [
                self._footprints.get((field.path, number)) if result is None else result
                for (field, number), result in zip(refs, results, strict=True)
            ]
        missing = [index for index, result in enumerate(results) if result is None]
        # The values that it is computed from may be in a cache.
        sources: dict[int, pa.Array] = {}
        if derived != "values":
            sources = {i: _lookup(keys[i], "values", refs[i]) for i in missing}
        unread = [index for index in missing if sources.get(index) is None]
        self.tally.add("cache", start, cached=len(refs) - len(unread))
        # A store that answers at once is asked by the threads that decode.
        if not reads_sync(self.store) and (unfetched := [i for i in unread if i not in raw]):
            start = time.perf_counter()
            buffers = fetch(self.store, [refs[i][0].chunk_key(refs[i][1]) for i in unfetched])
            raw.update(zip(unfetched, buffers, strict=True))
            self.tally.count_fetched(start, buffers)

        def work(index: int) -> None:
            ref, key = refs[index], keys[index]
            field, number = ref
            start = time.perf_counter()
            values = sources.get(index)
            if values is None:
                if index not in raw:
                    raw[index] = fetch(self.store, [field.chunk_key(number)])[0]
                    self.tally.count_fetched(start, [raw[index]])
                    start = time.perf_counter()
                values = decode(field, raw.pop(index))
            if derived == "bounds":
                self._footprints[field.path, number] = values
            result = DERIVATIONS[derived](field, values, field.rows_in_chunk(number))
            if key is not None:
                result = _cache(key, derived, ref, result, scanned=scanned)
                if field.name in learn:
                    _cache_zone(key, derived, ref, values, result)
            results[index] = result
            self.tally.add("decode", start, decoded=index in unread)

        if missing:
            side_by_side(work, missing, "decode", os.cpu_count() or 1)
        return results

    def _keys(self, refs: Sequence[ChunkRef]) -> list[Key | None]:
        """Cache keys of chunks, None where nothing identifies their bytes."""
        names = [field.chunk_key(number) for field, number in refs]
        tags: list[Hashable | None] = [None] * len(names)
        if self.snapshot is not None:
            tags = [self.snapshot] * len(names)
        elif isinstance(self.store, LocalStore):
            tags = [tag_of_file(self.store, name) for name in names]
        elif self._objects is not None:
            return list(map(self._object_key, refs, self._objects.list_etags(names)))
        return [_key(tag, ref) for tag, ref in zip(tags, refs, strict=True)]

    def _object_key(self, ref: ChunkRef, etag: str | None) -> Key | None:
        """Cache key of an object in any store, by its store, name and ETag."""
        assert self._objects is not None
        name = ref[0].chunk_key(ref[1])
        return None if etag is None else _key((*self._objects.identity, name, etag), ref)

    def _revalidate(
        self, refs: Sequence[ChunkRef], derived: Derived
    ) -> tuple[list[Key | None], dict[int, Any]]:
        """Cache keys of chunks that hold now, and bytes that came with the answer, by index."""
        if self.snapshot is not None or self._objects is None:
            return self._keys(refs), {}
        names = [field.chunk_key(number) for field, number in refs]
        tags = [self._tags.get(name) or self._objects.cached_etag(name) for name in names]
        keys = list(map(self._object_key, refs, tags))
        cached = [
            _lookup(key, derived, ref) is not None or _lookup(key, "values", ref) is not None
            for key, ref in zip(keys, refs, strict=True)
        ]
        unchecked = [
            i
            for i, (field, number) in enumerate(refs)
            if not (derived == "values" and (field.path, number) in self._footprints)
            and not (cached[i] and names[i] in self._tags)
        ]
        if sum(cached[i] for i in unchecked) > limits().conditional_requests:
            self._objects.mark_cached(names[i] for i in unchecked if cached[i])
            return self._keys(refs), {}
        if not unchecked:
            return keys, {}
        start = time.perf_counter()
        etags = [tags[i] if cached[i] else None for i in unchecked]
        responses = self._objects.fetch([names[i] for i in unchecked], etags)
        buffers = [None if buffer is Unchanged else buffer for buffer, _ in responses]
        self.tally.count_fetched(start, buffers)
        raw = {}
        for i, (buffer, tag) in zip(unchecked, responses, strict=True):
            if buffer is not Unchanged:
                raw[i] = buffer
            if tag is not None:
                self._tags[names[i]] = tag
            keys[i] = self._object_key(refs[i], tag)
        return keys, raw


type Key = tuple[Hashable, ...]  # identifies a chunk and its bytes


def _key(tag: Hashable | None, ref: ChunkRef) -> Key | None:
    """Cache key of a chunk whose bytes `tag` identifies, None where nothing does."""
    return None if tag is None else (tag, ref[0].fingerprint, ref[1])


def _cache_key(key: Key, derived: Derived, ref: ChunkRef) -> Key:
    # A chunk that has more rows later is the same chunk, with other counts and another zone.
    rows = [ref[0].rows_in_chunk(ref[1])] if derived in ("counts", "zone") else []
    return (*key, derived, *rows)


def _lookup(key: Key | None, derived: Derived, ref: ChunkRef) -> Any:
    """Take `derived` of a chunk from memory or the folder, None where neither has it."""
    if key is None:
        return None
    name = _cache_key(key, derived, ref)
    value = CACHE.get(name)
    if value is not None or derived != "values":
        return value
    array = FOLDER.get(name)
    if array is not None:
        CACHE.put(name, array, array.nbytes)
    return array


def _cache(key: Key, derived: Derived, ref: ChunkRef, value: Any, *, scanned: bool) -> Any:
    """Cache `derived` of a chunk where its field may take the room, and return it."""
    field, _ = ref
    name = _cache_key(key, derived, ref)
    share = value.nbytes * -(-field.length // field.chunk_length) * SHARE
    if not scanned or share <= CACHE.budget:
        if derived == "values" and not pa.types.is_primitive(field.type):
            # A copy of the right size: what it was decoded into may be far larger.
            value = pa.concat_arrays([value, value[:0]], memory_pool=POOL)
        CACHE.put(name, value, value.nbytes)
    if derived == "values" and (not scanned or share <= FOLDER.budget):
        FOLDER.put(name, value)
    return value


def _cache_zone(key: Key, derived: Derived, ref: ChunkRef, values: pa.Array, result: Any) -> None:
    """Cache the zone of a chunk, from its bounds where those are the result."""
    field, inside = ref[0], ref[0].rows_in_chunk(ref[1])
    if derived == "bounds":
        zone = zone_of_bounds(result[:inside])
    elif is_orderable(field.type):
        zone = zone_of(field, values[:inside])
    else:
        return
    CACHE.put(_cache_key(key, "zone", ref), zone, 0)


def fetch(store: Store, keys: Iterable[str]) -> list[Any]:
    """Fetch the stored bytes of `keys`, None where there are none."""
    buffers = get_values(store, list(keys))
    return [None if buffer is None else memoryview(buffer.as_numpy_array()) for buffer in buffers]


def tag_of_file(store: LocalStore, key: str) -> tuple[Any, ...]:
    """Identify a local file and its content: path, inode, time and size."""
    path = Path(store.root) / key
    try:
        stat = path.stat()
    except OSError:
        return (str(path),)
    return (str(path), stat.st_ino, stat.st_mtime_ns, stat.st_size)


def side_by_side[Item, Result](
    work: Callable[[Item], Result],
    items: Sequence[Item],
    pool: str = "index",
    threads: int | None = None,
) -> list[Result]:
    """Map `work` over items, by default in a thread each: a remote store gets all requests."""
    if len(items) == 1:
        return [work(items[0])]
    return list(thread_pool(pool, threads or len(items)).map(work, items))
