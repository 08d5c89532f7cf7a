"""Entries in, commits out: parsing side by side, writing batch by batch.

In memory are one batch, the entries that are being parsed, and the report.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import batched
from os import PathLike
from typing import Any

import icechunk

from l2view.errors import FieldError, IngestError, L2ViewError
from l2view.granules.layouts import LAYOUTS, StorageName
from l2view.index.commands import Index, extend
from l2view.ingest.entries import entries_of
from l2view.ingest.executors import map_tasks, workers
from l2view.ingest.granule import Entry, Failure, Granule
from l2view.ingest.grouping import GranuleOf
from l2view.ingest.harvest import plugin_harvesters
from l2view.ingest.options import IngestOptions
from l2view.ingest.parse import parse_granule
from l2view.ingest.progress import Show, show_ingest
from l2view.ingest.report import IngestReport, report_file
from l2view.ingest.state import CollectionState, read_state
from l2view.ingest.writer import choose_id, id_taken_message, is_other_source, plan_row, write_batch
from l2view.stores.repository import (
    containers_for,
    find_repository,
    keep_containers,
    open_repository,
    remove_empty,
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


def run_ingest(granules: Any, store: Any, options: IngestOptions) -> IngestReport:
    """Add granules to a collection (see `l2view.ingest`)."""
    pool = workers(options.parallel)
    repository = find_repository(store)
    state = _state(repository, options.branch)
    storage = state.require_storage(options.storage)
    parsing = options.parsing.with_valid_defaults(LAYOUTS[storage].kinds)
    parsing.check_required(state.kinds)
    options = replace(options, parsing=parsing)
    report = IngestReport(dry_run=options.dry_run)
    plugin_harvesters()  # whose warnings are for this process
    progress = show_ingest(options.progress, partial(count_entries, granules, options.granule_of))
    with report_file(options.report, report), progress as show:
        run = _Run(options, report, show)
        entries = run.valid_entries(entries_of(granules, options.granule_of))
        if options.on_conflict == "skip" and repository is not None:
            entries = run.new_entries(entries, repository)
        parse = partial(parse_granule, options=options.parsing)
        parsed = run.parsed_granules(map_tasks(pool, parse, entries, _worker_died))
        if options.dry_run:
            run.plan(parsed, state, storage)
        else:
            run.write(parsed, repository, store)
        show(report)
    if options.strict and report.failures:
        raise IngestError(f"{report.failed[0]}. {report.added.count} granules were added before")
    return report


def count_entries(granules: Any, granule_of: GranuleOf | str | None = None) -> int | None:
    """Return how many granules there are, None where they may be gone through but once."""
    members = granules if isinstance(granules, list | tuple) else [granules]
    if not all(isinstance(member, str | PathLike | Mapping) for member in members):
        return None
    try:
        return sum(1 for _ in entries_of(granules, granule_of))
    except L2ViewError:  # which the ingest itself says
        return None


def _state(repository: icechunk.Repository | None, branch: str) -> CollectionState:
    branches = {"main"} if repository is None else repository.list_branches()
    if branch not in branches:
        raise IngestError(unknown_name("branch", branch, sorted(branches), "branches"))
    if repository is None:
        return CollectionState()
    return read_state(repository.readonly_session(branch).store)


def _worker_died(entry: Entry) -> Failure:
    return Failure(entry.id, entry.url, "the process that parsed it ended")


@dataclass(frozen=True)
class _Run:
    """The steps of an ingest, which all add to its report."""

    options: IngestOptions
    report: IngestReport
    show: Show

    def valid_entries(self, entries: Iterable[Entry | Failure]) -> Iterator[Entry]:
        """Yield the entries, and report the failures among them."""
        for entry in entries:
            if isinstance(entry, Failure):
                self.report.fail(entry)
                self.show(self.report)
            else:
                yield entry

    def new_entries(
        self, entries: Iterable[Entry], repository: icechunk.Repository
    ) -> Iterator[Entry]:
        """Yield the entries whose ids aren't in the collection, so that no other is parsed."""
        # The caller's harvester may give a granule another source.
        compare = self.options.parsing.harvest is None
        for batch in batched(entries, LOOKED_UP):
            state = read_state(repository.readonly_session(self.options.branch).store)
            rows = state.sources([name for e in batch for name in (e.id, *e.aliases)])
            sources = {name: source for name, (_, source) in rows.items()}
            for entry in batch:
                name = choose_id((entry.id, *entry.aliases), entry.source, sources, sources)
                if name not in sources:
                    yield entry
                elif compare and is_other_source(entry.source, sources[name]):
                    self.report.fail(Failure(name, entry.url, id_taken_message(sources[name])))
                else:
                    self.report.skip([name])

    def parsed_granules(self, parsed: Iterable[Granule | Failure]) -> Iterator[Granule]:
        """Yield the granules, and report the failures; `strict` stops at the first of them."""
        for granule in parsed:
            if isinstance(granule, Failure):
                self.report.fail(granule)
            else:
                self.report.parsed += 1
                yield granule
            if self.options.strict and self.report.failures:
                return
            self.show(self.report)

    def plan(
        self, granules: Iterable[Granule], state: CollectionState, storage: StorageName
    ) -> None:
        """Report what would be written."""
        kinds = state.field_kinds(storage)
        folders: set[str] = set()
        for granule in granules:
            try:
                plan_row(granule, kinds, storage)
            except (FieldError, ValueError) as error:
                self.report.fail(granule.failure(str(error)))
                continue
            self.report.added.add([granule.id])
            self.report.add_granule(granule)
            folders |= {f"{url.rpartition('/')[0]}/" for url in granule.references.urls}
            if len(folders) > FOLDERS:
                folders = set(common_folders(folders).values())
        self.report.containers.extend(containers_for(folders))
        self.report.fields = dict(kinds.known)

    def write(
        self, granules: Iterable[Granule], repository: icechunk.Repository | None, store: Any
    ) -> None:
        """Write granules, so many in a commit, and none that has waited for long.

        The first commit makes the repository where there is none, and takes it away if it fails.
        """
        written: dict[str, str] = {}  # what other files of this ingest don't replace
        pending: list[Granule] = []
        began = time.monotonic()

        def flush() -> None:
            nonlocal repository, began
            if not pending:
                return
            is_new = repository is None
            current = open_repository(store) if repository is None else repository
            try:
                urls = {url for granule in pending for url in granule.references.urls}
                current, containers = with_containers(current, urls)
                self.report.containers.extend(containers)
                batch = write_batch(current, pending, self.options, written)
                self.report.add_batch(batch)
                if self.options.on_conflict == "replace":
                    written.update((granule.id, granule.source) for granule in batch.granules)
                repository = current
            finally:
                if is_new and remove_empty(current, store):
                    repository = None
                    self.report.containers.clear()
            pending.clear()
            began = time.monotonic()

        for granule in granules:
            pending.append(granule)
            if len(pending) >= self.options.batch or time.monotonic() - began > SECONDS:
                flush()
        flush()
        if repository is None:
            return
        if self.report.containers:
            keep_containers(repository, self.report.containers)
        if self.report.snapshots:
            indexes = extend(repository, self.options.branch, self._show_indexing)
            self.report.indexes.extend(map(str, indexes))
            self.report.indexing = ""

    def _show_indexing(self, index: Index, rows: int, total: int) -> None:
        self.report.indexing = f"{index}: {rows:,} of {total:,} rows"
        self.show(self.report)
