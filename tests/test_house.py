"""The figures that `make lint` holds to their limits."""

from __future__ import annotations

from pathlib import Path

import house

FILES = {
    "__init__.py": "from small.upper.one import run\n",
    "api.py": "def open(a, b, c, d, e, f, g): ...\n",
    "lower/__init__.py": "",
    "lower/two.py": """
def later():
    from small.upper import one, three
    return one.run
""",
    "upper/__init__.py": "",
    "upper/one.py": """
from small.lower.two import later

def run(a, b, c, d, e, f, g):
    found = result = later()
    return print(a=a, b=b, c=1, d=d, e=f), found, result
""",
    "upper/three.py": """
class Grid:
    def placed(self, a, b, c, d, e, f):
        return dict(a=a, b=b)

def run(): ...
""",
}


def test_each_figure(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    measured = [figure.value for figure in house.figures(folder).values()]
    modules, packages, deferred, long, repeated, vague, participles, shared, longest = measured
    assert (modules, packages) == (2, 2)  # upper.one and lower.two import one another
    assert deferred == 1
    assert long == 1  # that of upper.one: api.py is a face, and self is no parameter
    assert repeated == 3  # a, b and d
    assert vague == 50.0  # found, and not result
    assert participles == 20.0  # placed, of five
    assert shared == 40.0  # run twice, of five public names
    assert longest == 3
