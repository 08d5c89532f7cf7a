"""Granules that several modules of tests take in."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import write_swath


@pytest.fixture(scope="module")
def swaths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty swaths of twenty lengths, chunked in two ways."""
    folder = tmp_path_factory.mktemp("swaths")
    for number in range(20):
        write_swath(folder / f"s{number:02d}.h5", number, 10 + number, chunk=5 + number % 2)
    return folder
