"""Entries in, commits out: parsing side by side, writing batch by batch.

In memory are one batch, the entries that are being parsed, and the report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import batched
from os import PathLike
from typing import Any

import icechunk
from rich.console import Console

from l2view.errors import FieldError, IngestError, L2ViewError
from l2view.granules.layouts import StorageName
from l2view.index.commands import Index, extend
from l2view.ingest.entries import entries_of
from l2view.ingest.executors import map_tasks, workers
from l2view.ingest.granule import Entry, Failure, Granule
from l2view.ingest.harvest import plugin_harvesters
from l2view.ingest.options import IngestOptions
from l2view.ingest.parse import parse_granule
from l2view.ingest.progress import progress_bar_of
from l2view.ingest.report import IngestReport
from l2view.ingest.state import CollectionState, read_state
from l2view.ingest.writer import (
    id_taken_message,
    is_other_source,
    plan_row,
    write_batch,
)
from l2view.stores.repository import (
    containers_for,
    find_repository,
    keep_containers,
    open_repository,
    with_containers,
)
from l2view.stores.urls import common_folders
from l2view.text import unknown_name

SECONDS = 60.0
"""The longest that granules wait for their commit."""

FOLDERS = 1_000
"""The folders that a dry run remembers before it takes those that they share."""

LOOKED_UP = 1_000
"""The entries whose ids are looked up together."""

type Show = Callable[[IngestReport], None]
"""Shows a report as granules come in."""


def run_ingest(granules: Any, store: Any, options: IngestOptions) -> IngestReport:
    """Add granules to a collection (see `l2view.ingest`)."""
    pool = workers(options.parallel)
    repository = find_repository(store) if options.dry_run else open_repository(store)
    state = _state(repository, options.branch)
    storage = state.require_storage(options.storage)
    report = IngestReport(dry_run=options.dry_run)
    plugin_harvesters()  # whose warnings are for this process
    with _progress_callback(options, granules) as show:
        entries: Iterable[Entry] = _valid_entries(entries_of(granules), report, show)
        if options.on_conflict == "skip" and repository is not None:
            entries = _skip_existing(repository, entries, report, options)
        parsed = map_tasks(
            pool, partial(parse_granule, options=options.parsing), entries, _worker_died
        )
        ready = _parsed_granules(parsed, report, show, strict=options.strict)
        if repository is None or options.dry_run:
            _dry_run(ready, state, storage, report)
        else:
            _write_all(repository, ready, report, options)
            _extend_indexes(repository, report, options.branch, show)
        show(report)
    if options.strict and report.failures:
        raise IngestError(f"{report.failed[0]}. {report.added.count} granules were added before")
    return report


def _progress_callback(options: IngestOptions, granules: Any) -> AbstractContextManager[Show]:
    """Give what shows the report as granules come in."""
    if callable(options.progress):
        return nullcontext(options.progress)
    if options.progress:
        return progress_bar_of(lambda: count_entries(granules), Console(stderr=True))
    return nullcontext(lambda report: None)


def count_entries(granules: Any) -> int | None:
    """Return how many granules there are, None where they may be gone through but once."""
    members = granules if isinstance(granules, list | tuple) else [granules]
    if not all(isinstance(member, str | PathLike | Mapping) for member in members):
        return None
    try:
        return sum(1 for _ in entries_of(granules))
    except L2ViewError:  # which the ingest itself says
        return None


def _state(repository: icechunk.Repository | None, branch: str) -> CollectionState:
    if repository is None:
        return CollectionState()
    branches = repository.list_branches()
    if branch not in branches:
        raise IngestError(unknown_name("branch", branch, sorted(branches), "branches"))
    return read_state(repository.readonly_session(branch).store)


def _valid_entries(
    entries: Iterable[Entry | Failure], report: IngestReport, show: Show
) -> Iterator[Entry]:
    """Yield the entries, and report the failures among them."""
    for entry in entries:
        if isinstance(entry, Failure):
            report.fail(entry)
            show(report)
        else:
            yield entry


def _skip_existing(
    repository: icechunk.Repository,
    entries: Iterable[Entry],
    report: IngestReport,
    options: IngestOptions,
) -> Iterator[Entry]:
    """Yield the entries whose ids aren't in the collection, so that they aren't parsed again."""
    # The caller's harvester may give a granule another source.
    compare = options.parsing.harvest is None
    for batch in batched(entries, LOOKED_UP):
        state = read_state(repository.readonly_session(options.branch).store)
        sources = state.sources([entry.id for entry in batch])
        for entry in batch:
            if entry.id not in sources:
                yield entry
                continue
            source = sources[entry.id][1]
            if compare and is_other_source(entry.source, source):
                report.fail(Failure(entry.id, entry.url, id_taken_message(source)))
            else:
                report.skipped.add([entry.id])


def _worker_died(entry: Entry) -> Failure:
    return Failure(entry.id, entry.url, "the process that parsed it ended")


def _parsed_granules(
    parsed: Iterable[Granule | Failure], report: IngestReport, show: Show, *, strict: bool
) -> Iterator[Granule]:
    """Yield the granules, and report the failures; with `strict`, stop at the first of them."""
    for granule in parsed:
        if isinstance(granule, Failure):
            report.fail(granule)
        else:
            report.parsed += 1
            yield granule
        if strict and report.failures:
            return
        show(report)


def _dry_run(
    granules: Iterable[Granule], state: CollectionState, storage: StorageName, report: IngestReport
) -> None:
    """Report what would be written."""
    kinds = state.field_kinds(storage)
    folders: set[str] = set()
    for granule in granules:
        try:
            plan_row(granule, kinds, storage)
        except (FieldError, ValueError) as error:
            report.fail(Failure(granule.id, granule.source, str(error)))
            continue
        report.added.add([granule.id])
        report.add_granule(granule)
        folders |= {f"{url.rpartition('/')[0]}/" for url in granule.references.urls}
        if len(folders) > FOLDERS:
            folders = set(common_folders(folders).values())
    report.containers.extend(containers_for(folders))
    report.fields = dict(kinds.known)


def _write_all(
    repository: icechunk.Repository,
    granules: Iterable[Granule],
    report: IngestReport,
    options: IngestOptions,
) -> None:
    """Write granules, so many in a commit, and none that has waited for long."""
    pending: list[Granule] = []
    began = time.monotonic()

    def flush() -> None:
        nonlocal repository, began
        if pending:
            urls = {url for granule in pending for url in granule.references.urls}
            repository, containers = with_containers(repository, urls)
            report.containers.extend(containers)
            report.add_batch(write_batch(repository, pending, options))
            pending.clear()
        began = time.monotonic()

    for granule in granules:
        pending.append(granule)
        if len(pending) >= options.batch or time.monotonic() - began > SECONDS:
            flush()
    flush()
    if report.containers:
        keep_containers(repository, report.containers)


def _extend_indexes(
    repository: icechunk.Repository, report: IngestReport, branch: str, show: Show
) -> None:
    """Extend the indexes to what was written, and show how far they are."""

    def progress(index: Index, rows: int, total: int) -> None:
        report.indexing = f"{index}: {rows:,} of {total:,} rows"
        show(report)

    if report.snapshots:
        report.indexes.extend(map(str, extend(repository, branch, progress)))
        report.indexing = ""
