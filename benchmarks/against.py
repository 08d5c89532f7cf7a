"""This tree beside another commit's: ``python -m benchmarks.against REV [-n PAIRS] [NAME …]``.

Each tree runs its own benchmarks, with its own package and entry points, in processes that take
turns. Rows are compared by their names, in what they measure of l2view: the seconds of its side,
which alone is run, or the figure of a row that has no sides. It exits with 1 where a row is slower
or larger.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
PAIRS = 9
MOST = 1.05
"""The most that a median ratio may be, where its interval lies above 1."""

RUN = """
import json, statistics, sys, tempfile, warnings
from pathlib import Path
import icechunk
from benchmarks import measure

def time_ours(what, ours, theirs, most, *, runs=5):
    ours()
    seconds = [measure.seconds(ours) for _ in range(min(2 * runs, 20))]
    return measure.Row(what, 0.0, most, ours=statistics.median(seconds))

measure.paired = time_ours
from benchmarks.__main__ import BENCHMARKS
icechunk.set_logs_filter("error")
warnings.simplefilter("ignore")
with tempfile.TemporaryDirectory() as folder:
    rows = list(BENCHMARKS[sys.argv[1]](Path(folder)))
print(json.dumps({row.what: row.value if row.ours is None else row.ours for row in rows}))
"""


type Figures = dict[str, float]
"""What each row of a benchmark measures, by the row's name."""


@dataclass(frozen=True)
class Comparison:
    """One row in both trees: medians, and the ratio now ÷ before with its 95 % interval."""

    what: str
    before: float
    now: float
    ratio: float
    interval: tuple[float, float]

    @property
    def is_worse(self) -> bool:
        return self.ratio > MOST and self.interval[0] > 1


@contextmanager
def checkout(revision: str, folder: Path) -> Iterator[Path]:
    """Yield a work tree of `revision`, with the environments of peers that this tree has."""
    tree, git = folder / "before", ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)
    try:
        for peer in (ROOT / "benchmarks").glob("peers*"):
            (tree / "benchmarks" / peer.name).symlink_to(peer)
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def write_metadata(tree: Path, folder: Path) -> Path:
    """Write the installed package's metadata with the entry points of `tree` into `folder`."""
    installed = distribution("l2view")
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    groups = {"console_scripts": project["scripts"], **project.get("entry-points", {})}
    metadata = folder / f"l2view-{installed.version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(installed.read_text("METADATA") or "")
    lines = [
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()), ""])
        for group, entries in groups.items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    return folder


def measure(name: str, tree: Path, metadata: Path) -> Figures:
    """Return what each row of a benchmark of `tree` measures of l2view."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(metadata), str(tree)]),
        "XDG_STATE_HOME": str(metadata / "state"),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, name],
        env=environment,
        cwd=metadata,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """Return two of `values` between which the median of their distribution lies, with 95 %.

    By the binomial distribution, so that no shape is assumed. Fewer than six values give all of
    their range.
    """
    ordered, count = sorted(values), len(values)
    tails = [sum(math.comb(count, k) for k in range(n + 1)) / 2**count for n in range(count)]
    rank = max(sum(tail <= 0.025 for tail in tails) - 1, 0)
    return ordered[rank], ordered[count - 1 - rank]


def compare(before: Sequence[Figures], now: Sequence[Figures]) -> list[Comparison]:
    """Compare the rows that every run of both trees has; the runs stand in pairs."""
    shared = [what for what in now[0] if all(what in run for run in (*before, *now))]
    for what in sorted({what for run in (*before, *now) for what in run} - {*shared}):
        Console(stderr=True).print(f"only in one of both: {what}")
    comparisons = []
    for what in shared:
        pairs = [(one[what], two[what]) for one, two in zip(before, now, strict=True)]
        ratios = [two / one for one, two in pairs]
        medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
        ratio, interval = statistics.median(ratios), interval_of_median(ratios)
        comparisons.append(Comparison(what, medians[0], medians[1], ratio, interval))
    return comparisons


def report(comparisons: Sequence[Comparison]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("what", "before", "now", "ratio", "95 %"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in comparisons:
        color = "red" if row.is_worse else "green"
        low, high = row.interval
        figures = (f"{row.before:,.4g}", f"{row.now:,.4g}", f"[{color}]{row.ratio:.3f}[/]")
        table.add_row(row.what, *figures, f"{low:.3f} to {high:.3f}")
    Console(width=140, highlight=False).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.against", description=__doc__)
    parser.add_argument("revision")
    parser.add_argument("names", nargs="*")
    parser.add_argument("-n", "--pairs", type=int, default=PAIRS)
    options = parser.parse_intermixed_args()
    if not options.names:
        from benchmarks.__main__ import BENCHMARKS

        options.names = list(BENCHMARKS)
    comparisons = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with checkout(options.revision, folder) as tree:
            sides = [
                (tree, write_metadata(tree, folder / "metadata" / "before")),
                (ROOT, write_metadata(ROOT, folder / "metadata" / "now")),
            ]
            for benchmark in options.names:
                runs: tuple[list[Figures], ...] = ([], [])
                for turn in range(options.pairs):
                    for side in (0, 1) if turn % 2 == 0 else (1, 0):
                        runs[side].append(measure(benchmark, *sides[side]))
                comparisons += compare(*runs)
    report(comparisons)
    sys.exit(any(row.is_worse for row in comparisons))


if __name__ == "__main__":
    main()
