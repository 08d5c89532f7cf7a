"""Build or drop the indexes of a collection, each in its own commit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import icechunk
from zarr.abc.store import Store
from zarr.core.sync import sync

from l2view.errors import FieldError, IngestError, L2ViewWarning, StoreError, warn
from l2view.index import storage
from l2view.index.indexes import Indexes
from l2view.index.sorted import build_sorted, can_be_sorted, read_sorted
from l2view.index.storage import Progress
from l2view.index.trees import build_tree, is_ours, read_trees
from l2view.index.zone_maps import build_zones, has_zones
from l2view.limits import limits
from l2view.meta.schema import Field, read_fields
from l2view.stores.hierarchy import META, Hierarchy, join
from l2view.stores.open import Source, SourceOptions, open_source
from l2view.stores.repository import find_repository
from l2view.text import unknown_name

ATTEMPTS = 5  # how often building an index is tried where others rewrite rows meanwhile

DEFAULT_SORTED = ("id",)
"""The fields with a sorted index by default: queries by id match few granules."""

GROWTH = 2
"""A new segment merges those before it that aren't so many times larger: segments stay few, and a
row is merged rarely."""

type Kind = Literal["zones", "tree", "sorted"]
"""Zone maps of all fields, the R-tree of one, or the sorted index of one."""

LABELS: Mapping[Kind, str] = {
    "zones": "zone maps",
    "tree": "R-tree of ",
    "sorted": "sorted index of ",
}
BUILDERS = {"tree": build_tree, "sorted": build_sorted}
GROUPS: Mapping[Kind, tuple[str, ...]] = {
    "zones": (storage.ZONES,),
    "tree": (storage.TREES, storage.FOOTPRINTS, storage.SEGMENTS),
    "sorted": (storage.SORTED, storage.SEGMENTS),
}
"""The groups that hold an index of each kind, by field."""


@dataclass(frozen=True)
class Index:
    """An index of a field, or the zone maps, of which the field is empty."""

    kind: Kind
    field: str = ""

    def __str__(self) -> str:
        return LABELS[self.kind] + self.field


type IndexProgress = Callable[[Index, int, int], None]
"""Called with an index, the rows processed, and their total."""


def _ignore(index: Index, rows: int, total: int) -> None:
    pass


def build_indexes(
    store: Any,
    fields: Sequence[str] | None = None,
    *,
    drop: bool = False,
    branch: str = "main",
    geometry_field: str | None = None,
    progress: IndexProgress = _ignore,
) -> list[Index]:
    """Build indexes, or drop them: see `Collection.index`.

    A branch of a repository is committed to. A geometry field is taken for footprints beside
    those with the usual names.
    """
    source, repository = _open_target(store, branch)
    hierarchy = Hierarchy(source.store, source.path)
    if not sync(source.store.exists(f"{hierarchy.key('')}/zarr.json".lstrip("/"))):
        raise StoreError(f"{source.label} is no Zarr v3 store, beside which indexes could lie")
    fields_now, _ = sync(read_fields(hierarchy, META, geometry_field))
    available = {field.name: field for field in fields_now}
    if not available:
        raise StoreError(f"{source.label} has no fields in its group {META}")
    if drop and fields is None:
        indexes = _existing_indexes(hierarchy)
    else:
        indexes = _requested_indexes(available, fields)
    for index in indexes:
        work = partial(_drop, index) if drop else partial(_build, index, progress)
        if repository is None:
            work(Hierarchy(_writable(source.store), source.path))
        else:
            _commit(repository, branch, f"{'drop' if drop else 'index'}: {index}", work)
    return indexes


def _open_target(store: Any, branch: str) -> tuple[Source, icechunk.Repository | None]:
    """Open the store of a collection, and the repository to commit to if it is one."""
    source = open_source(store, SourceOptions(authorize=False))
    if isinstance(source.store, icechunk.IcechunkStore):
        if not isinstance(store, icechunk.Repository | icechunk.Storage | str | os.PathLike):
            raise StoreError("indexes are made in commits of their own: pass the repository")
        repository = find_repository(store)
        return open_source(repository, SourceOptions(branch, authorize=False)), repository
    if isinstance(store, Store) and store.read_only:
        raise StoreError(f"{source.label} was opened to be read only")
    return source, None


def extend(
    repository: icechunk.Repository, branch: str = "main", progress: IndexProgress = _ignore
) -> list[Index]:
    """Index the rows that were appended since, at a cost in proportion to them.

    They get a segment of their own, which merges the last segments that aren't much larger (as
    log-structured merge trees do). Return the indexes that cover more rows now.
    """
    extended = []
    for index in _existing_indexes(Hierarchy(repository.readonly_session(branch).store)):
        try:
            work = partial(_build, index, progress, extends=True)
            if index.kind != "zones" and _commit(repository, branch, f"index: {index}", work):
                extended.append(index)
        except IngestError as error:
            message = f"{index} doesn't know of the last rows, which are scanned: {error}"
            warn(message, L2ViewWarning)
    return extended


def _build(
    index: Index, progress: IndexProgress, hierarchy: Hierarchy, *, extends: bool = False
) -> bool:
    """Build an index in a store; with `extends`, of appended rows alone, where they are many."""
    fields, _ = sync(read_fields(hierarchy, META, index.field if index.kind == "tree" else None))
    if index.kind == "zones":
        total = sum(field.length for field in fields if has_zones(field))
        build_zones(hierarchy, progress=_counting(index, total, progress))
        return True
    field = next((field for field in fields if field.name == index.field), None)
    begin = _segment_start(hierarchy, index, field) if extends and field is not None else 0
    if field is None or begin is None:
        return False
    report = _counting(index, field.length - begin, progress)
    BUILDERS[index.kind](hierarchy, field, report, begin)
    return True


def _counting(index: Index, total: int, progress: IndexProgress) -> Progress:
    """Make what is called with rows report those so far."""
    done = 0

    def report(rows: int) -> None:
        nonlocal done
        done += rows
        progress(index, done, total)

    return report


def _segment_start(hierarchy: Hierarchy, index: Index, field: Field) -> int | None:
    """First row of a new segment, None where too few rows aren't covered."""
    indexes = Indexes(hierarchy)
    stored = (read_trees if index.kind == "tree" else read_sorted)(indexes, field)
    ranges = [] if stored is None else [segment.rows for segment in stored.segments]
    begin = ranges[-1].stop if ranges else 0
    if field.length - begin < limits().segment_rows:
        return None
    while ranges and len(ranges[-1]) < GROWTH * (field.length - begin):
        begin = ranges.pop().start
    return begin


def _requested_indexes(available: dict[str, Field], fields: Sequence[str] | None) -> list[Index]:
    """List the indexes of `fields`, or the default ones."""
    if fields is None:
        indexes = [Index("zones")]
        indexes += [
            Index("tree", name) for name, field in available.items() if field.geometry is not None
        ]
        return indexes + [Index("sorted", name) for name in DEFAULT_SORTED if name in available]
    indexes = []
    for name in dict.fromkeys(fields):
        if name not in available:
            raise FieldError(unknown_name("field", name, available))
        field = available[name]
        if field.geometry is None and not can_be_sorted(field):
            raise FieldError(f'the field "{name}" is {field.type}, which has no order to index')
        indexes.append(Index("sorted" if field.geometry is None else "tree", name))
    return indexes


def _existing_indexes(hierarchy: Hierarchy) -> list[Index]:
    """List the stored indexes that l2view built."""
    indexes = [Index("zones")] if sync(hierarchy.children(storage.ZONES)) else []
    trees = sync(hierarchy.children(storage.TREES))
    documents = {name: sync(hierarchy.read(join(storage.TREES, name))) for name in trees}
    indexes += [
        Index("tree", name) for name, document in documents.items() if is_ours(document or {})
    ]
    return indexes + [Index("sorted", name) for name in sync(hierarchy.children(storage.SORTED))]


def _drop(index: Index, hierarchy: Hierarchy) -> bool:
    """Drop an index from a store."""
    for group in GROUPS[index.kind]:
        storage.remove(hierarchy, join(group, index.field))
    return True


def _commit(
    repository: icechunk.Repository, branch: str, message: str, work: Callable[[Hierarchy], bool]
) -> bool:
    """Do work in a commit, and tell whether there was anything to do.

    What others append meanwhile stays, and is scanned until it is indexed. An `IngestError` says
    that they keep rewriting rows.
    """
    for _ in range(ATTEMPTS):
        session = repository.writable_session(branch)
        hierarchy = Hierarchy(session.store)
        if not work(hierarchy):
            return False
        storage.bump_rewrite_marker(hierarchy)
        try:
            session.commit(message, rebase_with=icechunk.ConflictDetector())
            return True
        except (icechunk.ConflictError, icechunk.RebaseFailedError):
            continue
    raise IngestError(
        f"others changed the same {ATTEMPTS} times while it was made ({message}); "
        "run it again when no ingest runs"
    )


def _writable(store: Store) -> Store:
    """Reopen a store for writing; a `StoreError` says that its class can't be written to."""
    try:
        return store.with_read_only(False)
    except NotImplementedError as error:
        raise StoreError(
            f"{type(store).__name__} can't be written to; indexes are made in an Icechunk "
            "repository, a folder or an object store"
        ) from error
