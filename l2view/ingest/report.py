"""What became of the granules of an ingest."""

from __future__ import annotations

from dataclasses import dataclass, field

from l2view.ingest.parse import Failure
from l2view.ingest.writer import Written

LISTED = 1_000
"""The most ids of a kind that a report lists; it counts them all."""


@dataclass
class Tally:
    """Granules of one kind: how many, and the first of them.

    Attributes
    ----------
    count
        How many.
    ids
        The first ids.
    """

    count: int = 0
    ids: list[str] = field(default_factory=list)

    def add(self, ids: list[str]) -> None:
        """Take in granules."""
        self.count += len(ids)
        self.ids.extend(ids[: LISTED - len(self.ids)])


@dataclass
class IngestReport:
    """What became of the granules of an ingest.

    Attributes
    ----------
    added, replaced, skipped
        How many, and the first ids.
    failed
        The granules that were left out, each with its reason; the first of them.
    failures
        How many were left out.
    containers
        The virtual chunk containers that the repository was given.
    snapshots
        The commits.
    references
        How many chunks are referred to.
    bytes
        Their size.
    """

    added: Tally = field(default_factory=Tally)
    replaced: Tally = field(default_factory=Tally)
    skipped: Tally = field(default_factory=Tally)
    failed: list[Failure] = field(default_factory=list)
    failures: int = 0
    containers: list[str] = field(default_factory=list)
    snapshots: list[str] = field(default_factory=list)
    references: int = 0
    bytes: int = 0

    def fail(self, failure: Failure) -> None:
        """Take in a granule that is left out."""
        self.failures += 1
        if len(self.failed) < LISTED:
            self.failed.append(failure)

    def take(self, written: Written, urls: dict[str, str]) -> None:
        """Take in a batch, whose granules' files are `urls`."""
        self.added.add(written.added)
        self.replaced.add(written.replaced)
        self.skipped.add(written.skipped)
        for name, reason in written.failed:
            self.fail(Failure(name, urls.get(name, ""), reason))
        if written.snapshot is not None:
            self.snapshots.append(written.snapshot)

    def __str__(self) -> str:
        """Return the report as a table."""
        lines = [
            f"{name:<9}{count:>11,}"
            for name, count in (
                ("added", self.added.count),
                ("replaced", self.replaced.count),
                ("skipped", self.skipped.count),
                ("failed", self.failures),
            )
        ]
        lines.append(f"{self.references:,} chunks of {self.bytes / 1e6:,.1f} MB referred to")
        lines.extend(f"may be read: {prefix}" for prefix in self.containers)
        lines.extend(f"left out: {one.id} ({one.url}): {one.reason}" for one in self.failed[:20])
        if self.failures > 20:
            lines.append(f"… and {self.failures - 20:,} more")
        return "\n".join(lines)
