"""What became of the granules of an ingest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from l2view.ingest.granule import BatchResult, Failure, Granule
from l2view.meta.columns import Kind
from l2view.text import join_names

LISTED = 1_000
"""The most ids of a kind that a report lists; it counts them all."""


@dataclass
class GranuleCount:
    """How many granules there are of a kind, and the first ids."""

    count: int = 0
    ids: list[str] = field(default_factory=list)

    def add(self, ids: Sequence[str]) -> None:
        """Add granules."""
        self.count += len(ids)
        self.ids.extend(ids[: LISTED - len(self.ids)])


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

    def fail(self, failure: Failure) -> None:
        """Add a granule that is left out."""
        self.failures += 1
        if len(self.failed) < LISTED:
            self.failed.append(failure)

    def add_granule(self, granule: Granule) -> None:
        """Add the chunks, the profile and the omitted arrays of a granule that isn't left out."""
        references = granule.references
        for array in references.arrays:
            self.references += len(array.locations) - array.locations.count("")
            self.bytes += int(array.lengths.sum())
        name = references.profile.name
        self.profiles[name] = self.profiles.get(name, 0) + 1
        for note in granule.notes:
            if note in self.notes or len(self.notes) < LISTED:
                self.notes.setdefault(note, GranuleCount()).add([granule.id])
        for left_out in references.omitted.items():
            if left_out in self.omitted or len(self.omitted) < LISTED:
                self.omitted.setdefault(left_out, GranuleCount()).add([granule.id])

    def add_batch(self, batch: BatchResult) -> None:
        """Add what became of a batch."""
        self.added.add(batch.added)
        self.replaced.add(batch.replaced)
        self.skipped.add(batch.skipped)
        for failure in batch.failed:
            self.fail(failure)
        if batch.snapshot is not None:
            self.snapshots.append(batch.snapshot)
        for granule in batch.granules:
            self.add_granule(granule)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        """Return the report as a table."""
        counts = [
            ("would add" if self.dry_run else "added", self.added.count),
            ("replaced", self.replaced.count),
            ("skipped", self.skipped.count),
            ("failed", self.failures),
        ]
        lines = [f"{name:<9}{count:>11,}" for name, count in counts]
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
            lines.append(f"… and {self.failures - 20:,} more")
        return "\n".join(lines)
