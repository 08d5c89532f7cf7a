"""This tree beside another commit's: ``python -m benchmarks.against REV [-n PAIRS] [NAME …]``.

Each tree runs its own benchmarks in a process of its own, with its own package and entry points.
Both write their data once, and then take turns, run by run, so that what else the machine does
meets both. Of rows with two sides l2view's alone is run. It exits with 1 where a row is slower or
larger.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
PAIRS = 9
MOST = 1.05
"""The most that a median ratio may be, where its interval lies above 1."""

RUN = """
import json, os, statistics, sys, tempfile, warnings
from pathlib import Path
import icechunk
from benchmarks import measure

# What benchmarks print is no answer.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

def answer(**values):
    print(json.dumps(values), file=answers, flush=True)

def time_ours(what, ours, theirs, most, *, runs=5):
    ours()
    answer(row=what)
    while sys.stdin.readline().strip() == "run":
        answer(seconds=statistics.median(measure.seconds(ours) for _ in range(3)))
    return measure.Row(what, 0.0, most, ours=0.0)

measure.paired = time_ours
from benchmarks.__main__ import BENCHMARKS
if sys.argv[1] not in BENCHMARKS:
    answer(figures={})
    sys.exit()
icechunk.set_logs_filter("error")
warnings.simplefilter("ignore")
with tempfile.TemporaryDirectory() as folder:
    rows = list(BENCHMARKS[sys.argv[1]](Path(folder)))
answer(figures={row.what: row.value for row in rows if row.ours is None})
"""
"""Answers with each row that is timed, with its seconds as often as asked, then with figures.

A tree that has no such benchmark has no rows."""


type Figures = dict[str, list[float]]
"""What each row of a benchmark measures, by the row's name, in pairs with the other tree's."""


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


class Side:
    """A benchmark of a tree, in a process that runs when it is its turn."""

    def __init__(self, name: str, tree: Path, metadata: Path) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(metadata), str(tree)]),
            "XDG_STATE_HOME": str(metadata / "state"),
        }
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, name],
            env=environment,
            cwd=metadata,
            stdin=pipe,
            stdout=pipe,
            text=True,
        )

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def read(self) -> Mapping[str, Any]:
        """Return the next answer; a RuntimeError says that the process has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a benchmark ended with {self.process.wait()}")
        answer: Mapping[str, Any] = json.loads(line)
        return answer

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def run(self) -> float:
        """Return the seconds of one run."""
        self.say("run")
        return float(self.read()["seconds"])


def measure(before: Side, now: Side, pairs: int) -> tuple[Figures, Figures]:
    """Run both sides in turn, row by row, and return what each row measures.

    Raises
    ------
    RuntimeError
        Where a side ends too early, or both don't have the same rows.
    """
    figures: tuple[Figures, Figures] = ({}, {})
    while True:
        answers = before.read(), now.read()
        has_ended = ["figures" in answer for answer in answers]
        # A side without rows or figures has nothing that could be compared.
        if all(has_ended) or {} in (answer.get("figures") for answer in answers):
            break
        what, other = (answer.get("row") for answer in answers)
        if what is None or what != other:
            raise RuntimeError(f"the rows differ: {what} and {other}")
        for side in figures:
            side[what] = []
        for turn in range(pairs):
            for number in (0, 1) if turn % 2 == 0 else (1, 0):
                figures[number][what].append((before, now)[number].run())
        before.say("next")
        now.say("next")
    for side, answer in zip(figures, answers, strict=True):
        side.update({what: [value] for what, value in answer.get("figures", {}).items()})
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


def compare(before: Figures, now: Figures) -> list[Comparison]:
    """Compare the rows that both trees have."""
    comparisons = []
    for what in now:
        if what not in before:
            continue
        ratios = [two / one for one, two in zip(before[what], now[what], strict=True)]
        medians = [statistics.median(side[what]) for side in (before, now)]
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
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with checkout(options.revision, folder) as tree:
            sides = [
                (tree, write_metadata(tree, folder / "metadata" / "before")),
                (ROOT, write_metadata(ROOT, folder / "metadata" / "now")),
            ]
            for name in options.names:
                with Side(name, *sides[0]) as before, Side(name, *sides[1]) as now:
                    comparisons += compare(*measure(before, now, options.pairs))
    report(comparisons)
    sys.exit(any(row.is_worse for row in comparisons))


if __name__ == "__main__":
    main()
