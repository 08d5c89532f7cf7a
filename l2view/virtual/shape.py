"""The shapes that a view can have: granules as groups, or joined into arrays.

A shape composes the documents of a hierarchy, and finds where each chunk comes from.
"""

from __future__ import annotations

from l2view.virtual.join_shape import JoinedView
from l2view.virtual.tree import Tree

type Shape = Tree | JoinedView
"""What a `ViewStore` shows."""

METADATA = "zarr.json"
"""The name of a node's document."""
