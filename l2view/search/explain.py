"""What a search cost: what was left out and by what, what was read, and where the time went."""

from __future__ import annotations

from dataclasses import dataclass

from l2view.meta.chunks import Tally


@dataclass(frozen=True)
class SearchCost:
    """What a search cost. Its text is for people.

    Attributes
    ----------
    rows
        The granules of the collection.
    found
        Those that were found.
    tally
        What was left out, and what was read.
    seconds
        How long it took.
    """

    rows: int
    found: int
    tally: Tally
    seconds: float

    def __str__(self) -> str:
        tally = self.tally
        lines = [
            f"{self.found:,} of {self.rows:,} granules in {self.seconds * 1e3:,.1f} ms",
            f"runs of rows: {tally.runs:,}",
            *(f"  {count:,} left out by {cause}" for cause, count in tally.ruled_out.items()),
            f"chunks: {tally.decoded:,} read and decoded, {tally.cached:,} kept from before",
            f"store: {tally.requests:,} requests, {tally.nbytes:,} bytes",
            "time by stage, of threads side by side:",
            *(f"  {name}: {seconds * 1e3:,.1f} ms" for name, seconds in tally.seconds.items()),
        ]
        return "\n".join(lines)

    __repr__ = __str__
