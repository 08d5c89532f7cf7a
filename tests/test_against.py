"""Two trees beside each other: pairs, medians, intervals, and what counts as worse."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import against
from benchmarks.against import Comparison, compare, interval_of_median, write_metadata


@pytest.mark.parametrize("count", range(1, 20))
def test_the_interval_holds_the_median_in_95_of_100(count: int) -> None:
    """Counted over all ways in which values can lie on either side of the median."""
    low, high = interval_of_median(range(count))
    inside = sum(math.comb(count, below) for below in range(count + 1) if low < below <= high)
    assert (low, high) == (low, count - 1 - low)
    assert inside >= 0.95 * 2**count or (low, high) == (0, count - 1)
    narrower = sum(math.comb(count, n) for n in range(count + 1) if low + 1 < n <= high - 1)
    assert narrower < 0.95 * 2**count, "a narrower one would do"


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=12))
def test_the_order_of_values_does_not_matter(values: list[float]) -> None:
    low, high = interval_of_median(values)
    assert low in values
    assert high in values
    assert low <= high
    assert interval_of_median(sorted(values, reverse=True)) == (low, high)


def test_rows_are_compared_in_pairs() -> None:
    before = {"get": [1.0, 10.0, 2.0], "gone": [1.0]}
    now = {"get": [2.0, 10.0, 6.0], "new": [1.0]}
    assert compare(before, now) == [Comparison("get", 2.0, 6.0, 2.0, (1.0, 3.0))]


@pytest.mark.parametrize(
    ("ratio", "low", "is_worse"),
    [(1.06, 1.01, True), (1.06, 0.99, False), (1.04, 1.01, False), (0.5, 0.4, False)],
)
def test_worse_is_slower_beyond_doubt(ratio: float, low: float, is_worse: bool) -> None:
    assert Comparison("get", 1.0, ratio, ratio, (low, 2.0)).is_worse is is_worse


def test_each_tree_has_its_own_entry_points(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/pyproject.toml").write_text(
        '[project.scripts]\nl2view = "old:main"\n[project.entry-points."zarr.codecs"]\na = "b:C"\n'
    )
    folder = write_metadata(tmp_path / "tree", tmp_path / "metadata")
    program = (
        "from importlib.metadata import distribution as of; "
        "print(*((e.group, e.name, e.value) for e in of('l2view').entry_points))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(folder)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        done.stdout.strip()
        == "('console_scripts', 'l2view', 'old:main') ('zarr.codecs', 'a', 'b:C')"
    )


def write_tree(folder: Path, seconds: float, row: str = "get") -> Path:
    """Write a tree whose benchmark takes the `seconds` that its package says."""
    package = folder / "benchmarks"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "measure.py").write_text(
        "from types import SimpleNamespace\n"
        "def Row(what, value, most, ours=None):\n"
        "    return SimpleNamespace(what=what, value=value, ours=ours)\n"
        "def seconds(side):\n"
        "    return side()\n"
    )
    (package / "__main__.py").write_text(
        "import l2view\n"
        "from .measure import Row, paired\n"
        "def fail():\n"
        "    raise AssertionError('the side of others')\n"
        "def reading(folder):\n"
        "    print('what a benchmark prints')\n"
        f"    yield paired('{row}', lambda: l2view.SECONDS, fail, 1.0)\n"
        "    yield Row('bytes', 3 * l2view.SECONDS, 5.0)\n"
        "BENCHMARKS = {'reading': reading}\n"
    )
    (folder / "l2view.py").write_text(f"SECONDS = {seconds}\n")
    return folder


def measure_trees(folder: Path, *trees: Path) -> tuple[against.Figures, against.Figures]:
    for tree in trees:
        (folder / "metadata" / tree.name).mkdir(parents=True)
    before, now = (against.Side("reading", t, folder / "metadata" / t.name) for t in trees)
    with before, now:
        return against.measure(before, now, 3)


def test_trees_take_turns_with_their_own_packages(tmp_path: Path) -> None:
    trees = write_tree(tmp_path / "before", 2.0), write_tree(tmp_path / "now", 3.0)
    before, now = measure_trees(tmp_path, *trees)
    assert before == {"get": [2.0] * 3, "bytes": [6.0]}
    assert now == {"get": [3.0] * 3, "bytes": [9.0]}
    assert [row.ratio for row in compare(before, now)] == [1.5, 1.5]


def test_rows_that_differ_are_not_compared(tmp_path: Path) -> None:
    trees = write_tree(tmp_path / "before", 2.0), write_tree(tmp_path / "now", 3.0, "put")
    with pytest.raises(RuntimeError, match="the rows differ: get and put"):
        measure_trees(tmp_path, *trees)


def test_a_benchmark_that_one_tree_lacks_has_no_rows(tmp_path: Path) -> None:
    trees = write_tree(tmp_path / "before", 2.0), write_tree(tmp_path / "now", 3.0)
    main = trees[0] / "benchmarks" / "__main__.py"
    main.write_text(main.read_text().replace("{'reading': reading}", "{}"))
    assert compare(*measure_trees(tmp_path, *trees)) == []
