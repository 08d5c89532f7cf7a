"""What a mosaic would read: for each of its chunks the granules, windows and bytes."""

from __future__ import annotations

from dataclasses import dataclass

from l2view.mosaic.dataset import Mosaic


@dataclass(frozen=True)
class MosaicPlan:
    """TODO."""

    mosaic: Mosaic


def explained(mosaic: Mosaic) -> MosaicPlan:
    """Return the plan."""
    return MosaicPlan(mosaic)
