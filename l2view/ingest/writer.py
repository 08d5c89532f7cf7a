"""One batch of granules into one Icechunk commit: metadata, references, all or nothing.

A batch is planned and written in a session of its own. Where someone else committed first, it
is planned again on what is there now: nothing was parsed for the plan, so that costs little,
and no row, slot or id is ever given twice.
"""

from __future__ import annotations

import hashlib
import random
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import icechunk
import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.sync import sync

from l2view.errors import FieldError, IngestError
from l2view.granules.convention import NAME, check_version, declare_convention
from l2view.granules.layouts import LAYOUTS, StorageName, detect_storage
from l2view.granules.references import GranuleReferences
from l2view.index.candidates import Candidates
from l2view.index.indexes import Indexes
from l2view.index.sorted import spans_of
from l2view.index.writer import keep_zones, limit_indexes
from l2view.meta.chunks import Chunks
from l2view.meta.columns import Kind, Kinds, Value, are_exact, kind_of_array, plain, write
from l2view.meta.schema import read_fields
from l2view.stores.hierarchy import META, OWN, Hierarchy, join

type OnConflict = Literal["skip", "replace", "error"]
"""What becomes of a granule whose id is there already."""

ATTEMPTS = 100
"""How often a batch is planned again where others commit first."""

IDS = join(OWN, "ids")
"""A hash of every granule's id, in the order of the rows."""


@dataclass(frozen=True)
class Granule:
    """A granule that is ready to be written.

    Attributes
    ----------
    row
        Its fields; ``id`` among them.
    references
        Its arrays.
    """

    row: Mapping[str, Any]
    references: GranuleReferences

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.row["id"])

    @property
    def source(self) -> str:
        """Where it comes from, empty where nobody says."""
        return str(self.row.get("href") or "")


@dataclass
class Written:
    """What became of a batch.

    Attributes
    ----------
    added, replaced, skipped
        Ids.
    failed
        Granules, each with its reason.
    kept
        The granules that were written.
    snapshot
        The commit, None where nothing was written.
    """

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[tuple[Granule, str]] = field(default_factory=list)
    kept: list[Granule] = field(default_factory=list)
    snapshot: str | None = None


def hashed(ids: Iterable[str]) -> NDArray[np.uint64]:
    """Return a hash of each id."""
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in ids]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def write_batch(
    repository: icechunk.Repository,
    granules: Sequence[Granule],
    *,
    branch: str = "main",
    on_conflict: OnConflict = "skip",
    storage: StorageName | None = None,
) -> Written:
    """Write a batch in one commit.

    Parameters
    ----------
    repository
        The collection's repository. Its virtual chunk containers cover the granules' files.
    granules
        The batch. Of several with one id, the first counts (the last with ``"replace"``).
    branch
        The branch to commit to.
    on_conflict
        What becomes of a granule whose id is there already.
    storage
        Where the arrays go, as in the collection by default, and packed in a new one.

    Returns
    -------
    Written
        What became of each granule.

    Raises
    ------
    IngestError
        Where others commit first time and again, or the collection has another storage.
    """
    for attempt in range(ATTEMPTS):
        session = repository.writable_session(branch)
        written = write_granules(session.store, granules, on_conflict, storage)
        if not written.added and not written.replaced:
            return written
        try:
            count = len(written.added) + len(written.replaced)
            written.snapshot = session.commit(f"ingest {count} granules")
            return written
        except icechunk.ConflictError:
            time.sleep(random.uniform(0, min(2.0, 0.02 * 2**attempt)))  # noqa: S311 (no secret)
    raise IngestError(
        f"others committed first {ATTEMPTS} times; nothing of this batch was written. "
        "Run the same command again"
    )


@dataclass(frozen=True)
class State:
    """A collection as it is before a batch.

    Attributes
    ----------
    root
        Its root, None where nothing was ever written.
    rows
        The number of granules.
    kinds
        The kinds of its fields.
    storage
        Where its arrays lie, None in a new one.
    """

    root: zarr.Group | None = None
    rows: int = 0
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    storage: StorageName | None = None

    def is_exact(self, name: str) -> bool:
        """Return whether the integers of a field are the same as floats."""
        if self.root is None or name not in self.kinds:
            return True
        array = self.root[join(META, name)]
        assert isinstance(array, zarr.Array)
        return are_exact(np.asarray(array[:]))


def read_state(store: Store) -> State:
    """Return the state of a collection.

    Raises
    ------
    IngestError
        Where the store holds something else, or a collection that isn't whole.
    FieldError
        Where it has a field that ingest can't add to.
    """
    try:
        root = zarr.open_group(store, mode="r")
    except FileNotFoundError:
        return State()
    check_version(root.attrs, "this collection")
    meta = root.get(META)
    if not isinstance(meta, zarr.Group):
        return State(root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dtypes without a v3 specification
        arrays = dict(meta.arrays())
    if not arrays:
        return State(root)
    storage = detect_storage(arrays)
    ids = root.get(IDS)
    if storage is None or "id" not in arrays or not isinstance(ids, zarr.Array):
        raise IngestError("this collection wasn't made by ingest, which can't add to it")
    rows = int(arrays["id"].shape[0])
    if ids.shape != (rows,):
        raise IngestError(
            f"this collection isn't whole: {ids.shape[0]:,} ids in {IDS} for {rows:,} rows of meta"
        )
    kinds = {name: kind_of_array(array) for name, array in arrays.items()}
    return State(root, rows, kinds, storage)


def planned(granule: Granule, kinds: Kinds, storage: StorageName) -> dict[str, Value]:
    """Return a granule's row, its kinds taken in, all of them or none.

    Raises
    ------
    FieldError
        Where a field can't hold what it shall.
    ValueError
        Where an array can't be written in this layout.
    """
    _ = granule.references.profile
    row: dict[str, Value] = {name: plain(name, value) for name, value in granule.row.items()}
    for name in LAYOUTS[storage].kinds:
        if name in row:
            raise FieldError(f'the field "{name}" is where l2view keeps a granule\'s place')
    kinds.add(row)
    return row


def write_granules(
    store: icechunk.IcechunkStore,
    granules: Sequence[Granule],
    on_conflict: OnConflict,
    asked: StorageName | None,
) -> Written:
    """Write what can be written into a session, and say what became of each granule."""
    state = read_state(store)
    storage = storage_of(state, asked)
    written = Written()
    chosen, present = _chosen(granules, state, on_conflict, written)
    kinds = Kinds({**state.kinds, **LAYOUTS[storage].kinds}, state.is_exact)
    kept: list[tuple[Granule, dict[str, Value]]] = []
    for granule in chosen:
        try:
            kept.append((granule, planned(granule, kinds, storage)))
        except (FieldError, ValueError) as error:
            written.failed.append((granule, str(error)))
    if not kept:
        return written
    root = zarr.open_group(store, mode="a")
    if NAME not in root.attrs:
        root.attrs.update(declare_convention(root.attrs.asdict()))
    places = LAYOUTS[storage].write(store, [(g.id, g.references) for g, _ in kept])
    rows = [(granule.id, row | place) for (granule, row), place in zip(kept, places, strict=True)]
    replaced = {present[name]: row for name, row in rows if name in present}
    added = [row for name, row in rows if name not in present]
    written.kept.extend(granule for granule, _ in kept)
    written.replaced.extend(name for name, _ in rows if name in present)
    written.added.extend(name for name, _ in rows if name not in present)
    new, again = write(root.require_group(META), kinds.known, state.rows, added, replaced)
    keep_zones(store, state.rows, new, again)
    if replaced:
        limit_indexes(store, rewritten=sorted(replaced))
    if IDS not in root:
        root.create_array(IDS, shape=(0,), chunks=(65_536,), dtype="uint64", compressors=None)
    ids = root[IDS]
    assert isinstance(ids, zarr.Array)
    if added:
        ids.resize((state.rows + len(added),))
        ids[state.rows :] = hashed(str(row["id"]) for row in added)
    return written


def storage_of(state: State, asked: StorageName | None) -> StorageName:
    """Return the storage to write.

    Raises
    ------
    IngestError
        Where the collection has another than was asked for.
    """
    if asked is not None and asked not in LAYOUTS:
        raise IngestError(f"storage={asked!r} is not {' or '.join(LAYOUTS)}")
    if state.storage is not None and asked not in (None, state.storage):
        raise IngestError(f"this collection has storage={state.storage!r}, not {asked!r}")
    return state.storage or asked or "packed"


def _chosen(
    granules: Sequence[Granule], state: State, on_conflict: OnConflict, written: Written
) -> tuple[list[Granule], dict[str, int]]:
    """Return the granules to write, each id once, and the rows of ids that are there."""
    unique: dict[str, Granule] = {}
    for granule in granules:
        other = unique.get(granule.id)
        if other is None or on_conflict == "replace":
            if other is not None:
                written.skipped.append(granule.id)
            unique[granule.id] = granule
        elif on_conflict == "error":
            written.failed.append((granule, "its id is twice in this ingest"))
        elif is_another(granule.source, other.source):
            written.failed.append((granule, taken(other.source)))
        else:
            written.skipped.append(granule.id)
    present = sources_of(state, list(unique))
    for name, (_, known) in present.items():
        if on_conflict == "error":
            written.failed.append((unique[name], "its id is in the collection already"))
        elif on_conflict == "skip" and is_another(unique[name].source, known):
            written.failed.append((unique[name], taken(known)))
        elif on_conflict == "skip":
            written.skipped.append(name)
    if on_conflict != "replace":
        unique = {n: g for n, g in unique.items() if n not in present}
    return list(unique.values()), {name: row for name, (row, _) in present.items()}


def rows_of(root: zarr.Group, ids: Sequence[str]) -> dict[str, int]:
    """Return the row numbers of those of `ids` that are in the collection at `root`."""
    hashes = root[IDS]
    assert isinstance(hashes, zarr.Array)
    sought = hashed(ids)
    parts, begin = [], 0
    if (known := _indexed(root.store, ids)) is not None:
        parts, begin = [known.rows], known.tail
    step = 16 * int(hashes.chunks[0])
    for start in range(begin, int(hashes.shape[0]), step):
        part = np.asarray(hashes[start : start + step])
        parts.append(start + places_of(sought, part))
    rows = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    wanted = set(ids)  # and not only their hashes
    found = zip(texts_at(root, "id", rows), rows.tolist(), strict=True)
    return {name: row for name, row in found if name in wanted}


def _indexed(store: Store, ids: Sequence[str]) -> Candidates | None:
    """Return the rows that a sorted index has for `ids`, None where that wouldn't be quicker."""
    hierarchy = Hierarchy(store)
    field = next(one for one in sync(read_fields(hierarchy, META))[0] if one.name == "id")
    indexes = Indexes(hierarchy)
    index = indexes.sorted(field)
    if index is None or len(index.always):
        return None
    return indexes.among(field, spans_of(list(pa.array(sorted(set(ids))))), Chunks(store))


def places_of(sought: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the positions in `hashes` of those that are sought, few among many."""
    # A look at two bytes of each leaves so few that the rest is quick.
    begins = np.zeros(2**16, dtype=bool)
    begins[sought.astype("<u8").view("<u2")[::4]] = True
    near = np.flatnonzero(begins[hashes.astype("<u8", copy=False).view("<u2")[::4]])
    return near[np.isin(hashes[near], sought)]


def texts_at(root: zarr.Group, name: str, rows: NDArray[np.int64]) -> list[str]:
    """Return a field of texts at some rows, each of its chunks read once."""
    array = root[join(META, name)]
    assert isinstance(array, zarr.Array)
    if len(rows) == 0:
        return []
    return [str(text) for text in np.asarray(array.get_coordinate_selection(rows)).tolist()]


def sources_of(state: State, ids: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Return the row numbers of those of `ids` that are in a collection, and their ``href``."""
    if not state.rows or state.root is None or not ids:
        return {}
    rows = rows_of(state.root, ids)
    if "href" not in state.kinds:
        return {name: (row, "") for name, row in rows.items()}
    places = texts_at(state.root, "href", np.array(list(rows.values()), dtype=np.int64))
    return {name: (rows[name], place) for name, place in zip(rows, places, strict=True)}


def is_another(source: str, known: str) -> bool:
    """Return whether a granule with an id that is known is of another file."""
    return bool(source and known and source != known)


def taken(known: str) -> str:
    """Say that an id is that of another file."""
    return (
        f"its id is that of {known} too; give it one of its own in harvest=, or take it in the "
        'place of the other with on_conflict="replace"'
    )
