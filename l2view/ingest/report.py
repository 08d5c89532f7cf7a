"""What became of the granules of an ingest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from l2view.errors import IngestError
from l2view.ingest.granule import BatchResult, Failure, Granule
from l2view.meta.columns import Kind
from l2view.stores.hierarchy import JSON
from l2view.text import join_names, strip_credentials

LISTED = 1_000
"""The most ids of a kind that a report lists; it counts them all."""


REPORT_HEAD = '{"l2view_report": 1, "granules": ['
"""What a file of a report begins with, which is no granule where it lies among them."""


@dataclass
class GranuleCount:
    """How many granules there are of a kind, and the first ids."""

    count: int = 0
    ids: list[str] = field(default_factory=list)

    def add(self, ids: Sequence[str]) -> None:
        """Add granules."""
        self.count += len(ids)
        self.ids.extend(ids[: LISTED - len(self.ids)])


def _count[T](counts: dict[T, GranuleCount], keys: Iterable[T], name: str) -> None:
    """Add a granule to what is counted by some keys, the first of which are kept."""
    for key in keys:
        if key in counts or len(counts) < LISTED:
            counts.setdefault(key, GranuleCount()).add([name])


def _ignore(entry: JSON) -> None:
    """Write an entry nowhere."""


@dataclass(repr=False)
class IngestReport:
    """What became of the granules of an ingest.

    Attributes
    ----------
    added, replaced, skipped
        The granules, counted, and the first ids.
    failed, failures
        The first of the granules that were left out, each with its reason; the number of all.
    omitted
        The granules, by the path of an array that was left out of them and the reason.
    notes
        The granules, by what is to be said of them.
    containers
        The virtual chunk containers that the repository was given.
    snapshots
        The commits.
    indexes, indexing
        The indexes that cover more rows now; the one that is extended just now, and how far.
    parsed
        The number of granules that were parsed; those that wait for their commit are among them.
    references, bytes
        The number of chunks that are referred to, and their size.
    profiles
        The number of granules of each product version.
    fields
        The kind of each field, of a dry run alone.
    dry_run
        Whether nothing was written.
    write_entry
        Called with what became of each granule, as JSON.
    """

    added: GranuleCount = field(default_factory=GranuleCount)
    replaced: GranuleCount = field(default_factory=GranuleCount)
    skipped: GranuleCount = field(default_factory=GranuleCount)
    failed: list[Failure] = field(default_factory=list)
    failures: int = 0
    omitted: dict[tuple[str, str], GranuleCount] = field(default_factory=dict)
    notes: dict[str, GranuleCount] = field(default_factory=dict)
    containers: list[str] = field(default_factory=list)
    snapshots: list[str] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)
    indexing: str = ""
    parsed: int = 0
    references: int = 0
    bytes: int = 0
    profiles: dict[str, int] = field(default_factory=dict)
    fields: Mapping[str, Kind] = field(default_factory=dict)
    dry_run: bool = False
    write_entry: Callable[[JSON], None] = _ignore

    def fail(self, failure: Failure) -> None:
        """Add a granule that is left out."""
        entry = {"id": failure.id, "status": "failed", "reason": failure.reason}
        self.write_entry(entry | {"href": strip_credentials(failure.url)})
        self.failures += 1
        if len(self.failed) < LISTED:
            self.failed.append(failure)

    def skip(self, ids: Sequence[str]) -> None:
        """Add granules that are there already."""
        self.skipped.add(ids)
        for name in ids:
            self.write_entry({"id": name, "status": "skipped"})

    def add_granule(self, granule: Granule, status: str = "added") -> None:
        """Add the chunks, the profile and the omitted arrays of a granule that isn't left out."""
        references = granule.references
        entry: JSON = {"id": granule.id, "status": status, "href": granule.source}
        entry |= {"notes": list(granule.notes)} if granule.notes else {}
        entry |= {"omitted": dict(references.omitted)} if references.omitted else {}
        self.write_entry(entry)
        for array in references.arrays:
            self.references += len(array.locations) - array.locations.count("")
            self.bytes += int(array.lengths.sum())
        name = references.profile.name
        self.profiles[name] = self.profiles.get(name, 0) + 1
        _count(self.notes, granule.notes, granule.id)
        _count(self.omitted, references.omitted.items(), granule.id)

    def add_batch(self, batch: BatchResult) -> None:
        """Add what became of a batch."""
        self.added.add(batch.added)
        self.replaced.add(batch.replaced)
        self.skip(batch.skipped)
        for failure in batch.failed:
            self.fail(failure)
        if batch.snapshot is not None:
            self.snapshots.append(batch.snapshot)
        replaced = set(batch.replaced)
        for granule in batch.granules:
            self.add_granule(granule, "replaced" if granule.id in replaced else "added")

    def counts(self) -> dict[str, int]:
        """Return the number of granules by what became of them."""
        counted = {name: getattr(self, name).count for name in ("added", "replaced", "skipped")}
        return {**counted, "failed": self.failures}

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        """Return the report as a table."""
        lines = [f"{name:<9}{count:>11,}" for name, count in self.counts().items()]
        if self.dry_run:
            lines[0] = f"would add{self.added.count:>11,}"
        lines.append(f"{self.references:,} chunks of {self.bytes / 1e6:,.1f} MB referred to")
        lines.extend(f"may be read: {prefix}" for prefix in self.containers)
        lines.extend(f"more rows: {index}" for index in self.indexes)
        if self.dry_run:
            most = sorted(self.profiles.items(), key=lambda item: -item[1])
            lines.extend(f"profile {name}: {count:,} granules" for name, count in most[:20])
            fields = [f"{name} ({kind})" for name, kind in sorted(self.fields.items())]
            lines.append(f"fields: {join_names(fields, most=100)}")
        lines.extend(
            f"{of.count:,} granules, {of.ids[0]} the first: {note}"
            for note, of in list(self.notes.items())[:20]
        )
        lines.extend(
            f"without {path}: {of.count:,} granules, {of.ids[0]} the first: {reason}"
            for (path, reason), of in list(self.omitted.items())[:20]
        )
        if len(self.omitted) > 20:
            lines.append(f"… and {len(self.omitted) - 20:,} more arrays")
        lines.extend(f"left out: {failure}" for failure in self.failed[:20])
        if self.failures > 20:
            lines.append(f"… and {self.failures - 20:,} more; report= (--report) lists all")
        return "\n".join(lines)


@contextmanager
def report_file(path: str | PathLike[str] | None, report: IngestReport) -> Iterator[None]:
    """Write what becomes of each granule to a JSON file as it goes, and the counts at the end.

    The file has a line for each granule, so that what is there can be read at any moment.
    """
    if path is None:
        yield
        return
    try:
        opened = Path(path).open("w", encoding="utf-8", buffering=1)  # noqa: SIM115
    except OSError as error:
        raise IngestError(f"report= (--report) can't be written: {error}") from error
    with opened as file:
        file.write(REPORT_HEAD)
        file.flush()
        separator = "\n"

        def write_entry(entry: JSON) -> None:
            nonlocal separator
            file.write(separator + json.dumps(entry, ensure_ascii=True))
            separator = ",\n"

        report.write_entry = write_entry
        try:
            yield
        finally:
            report.write_entry = _ignore
            counts = report.counts()
            end = json.dumps({**counts, "dry_run": report.dry_run, "snapshots": report.snapshots})
            file.write(f"\n], {end[1:]}\n")
