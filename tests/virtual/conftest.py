"""Views of the collection in memory."""

from __future__ import annotations

import pytest
from zarr.storage import MemoryStore

import l2view


@pytest.fixture
def view(store: MemoryStore) -> l2view.View:
    """Return a view of three granules."""
    return l2view.open(store, "idx IN (1, 2, 4)")
