"""Granules into a collection and out of it: each batch in one commit, all or nothing.

A batch is planned and written in a session of its own. Where someone else committed first, it
is planned again on what is there now: nothing was parsed for the plan, so that costs little,
and no row, slot or id is ever given twice.
"""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray

from l2view.errors import FieldError, IngestError
from l2view.granules.layouts import LAYOUTS, NAME, StorageName, declare_convention
from l2view.index.storage import ZONES, limit_indexes
from l2view.index.zone_maps import build_zones
from l2view.ingest.granule import BatchResult, Granule
from l2view.ingest.options import IngestOptions, OnConflict
from l2view.ingest.state import IDS, CollectionState, hash_ids, read_state
from l2view.meta.columns import Kinds, Value, plain, write
from l2view.stores.hierarchy import META, Hierarchy

ATTEMPTS = 100
"""How often a batch is planned again where others commit first."""


def commit_with_retries(
    repository: icechunk.Repository,
    branch: str,
    change: Callable[[icechunk.Session], str | None],
) -> str | None:
    """Commit a change, which is made again where others commit first; return the snapshot.

    Called with a writable session, `change` returns the commit's message, None where there is
    nothing to commit.
    """
    for attempt in range(ATTEMPTS):
        session = repository.writable_session(branch)
        message = change(session)
        if message is None:
            return None
        try:
            return session.commit(message)
        except icechunk.ConflictError:
            time.sleep(random.uniform(0, min(2.0, 0.02 * 2**attempt)))  # noqa: S311 (no secret)
    raise IngestError(
        f"others committed first {ATTEMPTS} times; nothing was written. Run the same command again"
    )


def write_batch(
    repository: icechunk.Repository,
    granules: Sequence[Granule],
    options: IngestOptions = IngestOptions(),
    written: Mapping[str, str] = MappingProxyType({}),
) -> BatchResult:
    """Write a batch in one commit.

    The repository's virtual chunk containers cover the granules' files. Of several granules with
    one id, the first counts; with ``on_conflict="replace"`` the last, if they are of one source.
    `written` are the ids, with their sources, that no other source replaces.
    """
    result = BatchResult()

    def change(session: icechunk.Session) -> str | None:
        nonlocal result
        result = write_to_session(session.store, granules, options, written)
        count = len(result.added) + len(result.replaced)
        return f"ingest {count} granules" if count else None

    result.snapshot = commit_with_retries(repository, options.branch, change)
    return result


def plan_row(granule: Granule, kinds: Kinds, storage: StorageName) -> dict[str, Value]:
    """Return a granule's row, its kinds added to `kinds`, all of them or none.

    A `FieldError` or `ValueError` says which field or array can't be written.
    """
    _ = granule.references.profile
    row: dict[str, Value] = {name: plain(name, value) for name, value in granule.row.items()}
    for name in LAYOUTS[storage].kinds:
        if name in row:
            raise FieldError(f'the field "{name}" is where l2view keeps a granule\'s place')
    kinds.add(row)
    return row


def write_to_session(
    store: icechunk.IcechunkStore,
    granules: Sequence[Granule],
    options: IngestOptions,
    written: Mapping[str, str] = MappingProxyType({}),
) -> BatchResult:
    """Write what can be written into a session, and say what became of each granule."""
    state = read_state(store)
    storage = state.require_storage(options.storage)
    result = BatchResult()
    selection, present = _select(granules, state, options.on_conflict, written, result)
    kinds = state.field_kinds(storage)
    rows: list[dict[str, Value]] = []
    for granule in selection:
        try:
            rows.append(plan_row(granule, kinds, storage))
            result.granules.append(granule)
        except (FieldError, ValueError) as error:
            result.failed.append(granule.failure(str(error)))
    if not rows:
        return result
    root = zarr.open_group(store, mode="a")
    if NAME not in root.attrs:
        root.attrs.update(declare_convention(root.attrs.asdict()))
    located = LAYOUTS[storage].write(store, [(g.id, g.references) for g in result.granules])
    added: list[dict[str, Value]] = []
    replaced: dict[int, dict[str, Value]] = {}
    for granule, row, location in zip(result.granules, rows, located, strict=True):
        if granule.id in present:
            result.replaced.append(granule.id)
            replaced[present[granule.id]] = row | location
        else:
            result.added.append(granule.id)
            added.append(row | location)
    write(root.require_group(META), kinds.known, state.rows, added, replaced)
    build_zones(Hierarchy(store), state.rows, replaced)
    if replaced:
        limit_indexes(store, rewritten=sorted(replaced))
    if IDS not in root:
        root.create_array(IDS, shape=(0,), chunks=(65_536,), dtype="uint64", compressors=None)
    if added:
        ids = root[IDS]
        assert isinstance(ids, zarr.Array)
        ids.resize((state.rows + len(added),))
        ids[state.rows :] = hash_ids(result.added)
    return result


def _select(
    granules: Sequence[Granule],
    state: CollectionState,
    on_conflict: OnConflict,
    written: Mapping[str, str],
    result: BatchResult,
) -> tuple[list[Granule], dict[str, int]]:
    """Return the granules to write, each id once, and the rows of ids that are there."""
    unique: dict[str, Granule] = {}
    present = state.sources(list({name for g in granules for name in (g.id, *g.aliases)}))
    sources = {name: source for name, (_, source) in present.items()}
    replaces = on_conflict == "replace"
    taken: dict[str, str] = dict(written if replaces else sources)
    for granule in granules:
        name = choose_id((granule.id, *granule.aliases), granule.source, sources, taken)
        is_other = is_other_source(granule.source, taken.get(name, ""))
        if name in taken and (is_other or not replaces):
            place = "twice in this ingest" if name in unique else "in the collection already"
            if on_conflict == "error":
                result.failed.append(granule.failure(f"its id is {place}"))
            elif is_other:
                result.failed.append(granule.failure(id_taken_message(taken[name])))
            else:
                result.skipped.append(name)
            continue
        if name in unique:
            result.skipped.append(name)
        elif name in sources and is_other_source(granule.source, sources[name]):
            granule = replace(granule, notes=(*granule.notes, REPLACED))
        unique[name] = granule if name == granule.id else granule.with_alias(name)
        sources[name] = taken[name] = granule.source
    return list(unique.values()), {n: row for n, (row, _) in present.items() if n in unique}


REPLACED = "it takes the place of another file's granule, which had its id"
"""What is said of a granule that replaces one of another source."""


def choose_id(
    names: Sequence[str], source: str, sources: Mapping[str, str], taken: Mapping[str, str]
) -> str:
    """Return the id of a file that may have one of several.

    It is the one that the file has, by the `sources` of ids, else the first that isn't `taken`,
    else the first of all. Two files of one folder aren't told apart: they may be one granule.
    """
    own = (n for n in names if n in sources and not is_other_source(source, sources[n]))
    folder = taken.get(names[0], "").rpartition("/")[0]
    free = (n for n in names if n not in taken and folder != source.rpartition("/")[0])
    return next(own, next(free, names[0]))


def is_other_source(source: str, known: str) -> bool:
    """Return whether a granule comes from another file than the one that has its id."""
    return bool(source and known and source != known)


def id_taken_message(source: str) -> str:
    """Say that an id is that of another file."""
    return (
        f"its id is that of {source} too; give it one of its own in harvest= (--harvest), or take "
        'it in the place of the other with on_conflict="replace" (--on-conflict replace)'
    )


def delete_granules(
    repository: icechunk.Repository,
    find: Callable[[icechunk.Session], NDArray[np.int64]],
    branch: str,
) -> int:
    """Delete the granules in the rows that `find` finds in a session, and return how many.

    Their rows leave ``/meta``, and the rows after them move up. Their slots stay, and no search
    finds them any more. Earlier snapshots still have them.
    """
    count = 0

    def change(session: icechunk.Session) -> str | None:
        nonlocal count
        rows, store = np.unique(find(session)), session.store
        count = len(rows)
        if count == 0:
            return None
        root: Any = zarr.open_group(store, mode="a")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of dtypes without a v3 specification
            arrays = [array for _, array in root[META].arrays()]
            for array in [*arrays, *([root[IDS]] if IDS in root else [])]:
                _remove_rows(array, rows)
            if ZONES in root:
                build_zones(Hierarchy(store), int(rows[0]))
            limit_indexes(store, rows=int(rows[0]))
        return f"delete {count} granules"

    commit_with_retries(repository, branch, change)
    return count


def _remove_rows(array: Any, rows: NDArray[np.int64]) -> None:
    """Take rows out of a field; what lies before the first of them isn't touched."""
    length, begin = int(array.shape[0]), int(rows[0])
    values = np.delete(np.asarray(array[begin:]), rows - begin)
    if len(values):
        array[begin : begin + len(values)] = values
    array.resize((length - len(rows),))
