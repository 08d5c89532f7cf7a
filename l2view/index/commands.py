"""Build or drop the indexes of a collection, each in its own commit."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import icechunk
from zarr.abc.store import Store
from zarr.core.sync import sync

from l2view.errors import FieldError, IngestError, L2ViewWarning, StoreError, warn
from l2view.index.indexes import Indexes
from l2view.index.sorted import build_sorted, can_be_sorted
from l2view.index.storage import (
    FOOTPRINTS,
    SEGMENTS,
    SORTED,
    TREES,
    ZONES,
    add_segment,
    bump_rewrite_marker,
    remove,
)
from l2view.index.trees import build_tree, is_ours
from l2view.index.zone_maps import build_zones, has_zones
from l2view.limits import limits
from l2view.meta.schema import Field, read_fields
from l2view.stores.hierarchy import META, Hierarchy, join
from l2view.stores.open import Source, SourceOptions, open_source
from l2view.stores.repository import find_repository
from l2view.text import unknown_name

ATTEMPTS = 5
"""How often building an index is tried where others rewrite rows meanwhile."""

DEFAULT_SORTED = ("id",)
"""The fields with a sorted index by default: queries by id match few granules."""

GROWTH = 2
"""A new segment merges those before it that aren't so many times larger: segments stay few, and a
row is merged rarely."""

BUILDERS = {"tree": build_tree, "sorted": build_sorted}
"""The function that builds each kind of index of a field."""

type Kind = Literal["zones", "tree", "sorted"]
"""Zone maps of all fields, the R-tree of one, or the sorted index of one."""


@dataclass(frozen=True)
class Index:
    """An index.

    Attributes
    ----------
    kind
        What it is.
    field
        The field that it is of, empty for zone maps.
    """

    kind: Kind
    field: str = ""

    def __str__(self) -> str:
        names = {"zones": "zone maps", "tree": "R-tree of ", "sorted": "sorted index of "}
        return names[self.kind] + self.field


def build_indexes(
    store: Any,
    fields: Sequence[str] | None = None,
    *,
    drop: bool = False,
    branch: str = "main",
    geometry_field: str | None = None,
    progress: Callable[[Index, int, int], None] = lambda index, rows, total: None,
) -> list[Index]:
    """Build indexes, or drop them.

    Parameters
    ----------
    store
        A path, URL, Icechunk repository, or Zarr store that can be written to.
    fields
        Of which fields: footprints get an R-tree, others a sorted index. By default zone maps
        of all fields, the R-trees of all footprints, and the sorted index of ``id``.
    drop
        Drop them instead; by default all.
    branch
        The branch of a repository to commit to.
    geometry_field
        A field that is taken for footprints beside those with the usual names.
    progress
        Called with an index, the rows processed, and their total.

    Returns
    -------
    list of Index
        The indexes that were built or dropped.

    Raises
    ------
    FieldError
        Where there is no such field, or it has no order.
    IngestError, StoreError
        Where the store can't be written to, or others keep rewriting rows.
    """
    source, repository = _open_target(store, branch)
    hierarchy = Hierarchy(source.store, source.path)
    if not sync(source.store.exists(f"{hierarchy.key('')}/zarr.json".lstrip("/"))):
        raise StoreError(f"{source.label} is no Zarr v3 store, beside which indexes could lie")
    fields_now, _ = sync(read_fields(hierarchy, META, geometry_field))
    available = {field.name: field for field in fields_now}
    if not available:
        raise StoreError(f"{source.label} has no fields in its group {META}")
    indexes = (
        _existing_indexes(hierarchy)
        if drop and fields is None
        else _requested_indexes(available, fields)
    )
    for index in indexes:
        work = (
            _drop_work(index, source.path)
            if drop
            else _build_work(index, available, source.path, progress)
        )
        if repository is None:
            work(_writable(source.store))
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
    repository: icechunk.Repository,
    branch: str = "main",
    progress: Callable[[Index, int, int], None] = lambda index, rows, total: None,
) -> list[Index]:
    """Index the rows that were appended since, at a cost in proportion to them.

    They get a segment of their own, which merges the last segments that aren't much larger (as
    log-structured merge trees do).

    Parameters
    ----------
    repository
        The collection's repository.
    branch
        The branch to commit to.
    progress
        Called with an index, the rows processed, and their total.

    Returns
    -------
    list of Index
        The indexes that cover more rows now.
    """
    extended = []
    for index in _existing_indexes(Hierarchy(repository.readonly_session(branch).store)):
        try:
            if index.kind != "zones" and _commit(
                repository, branch, f"index: {index}", _extend_work(index, progress)
            ):
                extended.append(index)
        except IngestError as error:
            warn(
                f"{index} doesn't know of the last rows, which are scanned: {error}", L2ViewWarning
            )
    return extended


def _extend_work(
    index: Index, progress: Callable[[Index, int, int], None]
) -> Callable[[Store], bool]:
    """Make the work that indexes appended rows, where they are many."""

    def work(store: Store) -> bool:
        hierarchy = Hierarchy(store)
        field = _current_field(hierarchy, index)
        begin = None if field is None else _segment_start(hierarchy, index, field)
        if field is None or begin is None:
            return False
        total, done = field.length - begin, 0

        def report(rows: int) -> None:
            nonlocal done
            done += rows
            progress(index, done, total)

        unindexed = BUILDERS[index.kind](hierarchy, field, report, begin)
        if begin:
            path = join(TREES if index.kind == "tree" else SORTED, index.field)
            add_segment(hierarchy, path, range(begin, field.length), unindexed)
        return True

    return work


def _current_field(hierarchy: Hierarchy, index: Index) -> Field | None:
    """Read the field of an index, None where it was deleted."""
    fields, _ = sync(read_fields(hierarchy, META, index.field if index.kind == "tree" else None))
    return next((field for field in fields if field.name == index.field), None)


def _segment_start(hierarchy: Hierarchy, index: Index, field: Field) -> int | None:
    """First row of a new segment, None where too few rows aren't covered."""
    indexes, ranges = Indexes(hierarchy), list[range]()
    if index.kind == "tree" and (trees := indexes.tree(field)) is not None:
        ranges = [segment.rows for segment in trees.segments]
    elif index.kind == "sorted" and (ordered := indexes.sorted_index(field)) is not None:
        ranges = [segment.row_range for segment in ordered.segments]
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
        if available[name].geometry is not None:
            indexes.append(Index("tree", name))
        elif can_be_sorted(available[name]):
            indexes.append(Index("sorted", name))
        else:
            raise FieldError(
                f'the field "{name}" is {available[name].type}, which has no order to index'
            )
    return indexes


def _existing_indexes(hierarchy: Hierarchy) -> list[Index]:
    """List the stored indexes that l2view built."""
    indexes = [Index("zones")] if sync(hierarchy.children(ZONES)) else []
    for name in sync(hierarchy.children(TREES)):
        document = sync(hierarchy.read(join(TREES, name))) or {}
        if is_ours(document):
            indexes.append(Index("tree", name))
    return indexes + [Index("sorted", name) for name in sync(hierarchy.children(SORTED))]


def _build_work(
    index: Index,
    available: dict[str, Field],
    root: str,
    progress: Callable[[Index, int, int], None],
) -> Callable[[Store], bool]:
    """Make the work that builds an index in a store."""
    rows = next(iter(available.values())).length
    times = sum(map(has_zones, available.values())) if index.kind == "zones" else 1
    total = rows * times

    def work(store: Store) -> bool:
        hierarchy, done = Hierarchy(store, root), 0

        def report(rows: int) -> None:
            nonlocal done
            done += rows
            progress(index, done, total)

        if index.kind == "zones":
            build_zones(hierarchy, progress=report)
        elif (
            field := _current_field(hierarchy, index)
        ) is not None:  # which may have more rows by now
            BUILDERS[index.kind](hierarchy, field, report)
        return True

    return work


def _drop_work(index: Index, root: str) -> Callable[[Store], bool]:
    """Make the work that drops an index from a store."""

    def work(store: Store) -> bool:
        hierarchy = Hierarchy(store, root)
        match index.kind:
            case "zones":
                remove(hierarchy, ZONES)
            case "tree":
                remove(hierarchy, join(TREES, index.field))
                remove(hierarchy, join(FOOTPRINTS, index.field))
                remove(hierarchy, join(SEGMENTS, index.field))
            case "sorted":
                remove(hierarchy, join(SORTED, index.field))
                remove(hierarchy, join(SEGMENTS, index.field))
        return True

    return work


def _commit(
    repository: icechunk.Repository, branch: str, message: str, work: Callable[[Store], bool]
) -> bool:
    """Do work in a commit; what others append meanwhile stays, and is scanned until indexed.

    Returns
    -------
    bool
        Whether there was anything to do.

    Raises
    ------
    IngestError
        Where others keep rewriting rows.
    """
    for _ in range(ATTEMPTS):
        session = repository.writable_session(branch)
        if not work(session.store):
            return False
        bump_rewrite_marker(Hierarchy(session.store))
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
    """Reopen a store for writing.

    Raises
    ------
    StoreError
        Where its class can't be written to.
    """
    try:
        return store.with_read_only(False)
    except NotImplementedError as error:
        raise StoreError(
            f"{type(store).__name__} can't be written to; indexes are made in an Icechunk "
            "repository, a folder or an object store"
        ) from error
