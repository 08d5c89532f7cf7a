"""Ragged arrays (CF 1.12, section 9.3): windows that keep samples with their instances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l2view.geolocation.coordinates import distance, parent
from l2view.geolocation.dimensions import Dimension, GranuleDimensions
from l2view.geolocation.granule import LocatedGranule
from l2view.geolocation.windows import NOTHING, Window, union


@dataclass(frozen=True, eq=False)
class Ragged:
    """Instances of which each has samples: by their number where they follow one another.

    Without numbers an index says of each sample the position of its instance, which stays.
    """

    path: str  # of the array that declares it
    instances: Dimension
    samples: Dimension
    ends: NDArray[np.int64] | None  # of each instance's samples, a 0 before the first

    def instances_of(self, window: Window) -> Window:
        """Return the instances of which some samples are."""
        assert self.ends is not None
        first = np.searchsorted(self.ends, window[0], side="right") - 1
        return int(first), int(np.searchsorted(self.ends, window[1], side="left"))

    def samples_of(self, window: Window) -> Window:
        """Return the samples that some instances have."""
        assert self.ends is not None
        start, stop = self.ends[list(window)].tolist()
        return (start, stop) if stop > start else NOTHING


def ragged_arrays(granule: LocatedGranule, dimensions: GranuleDimensions) -> Iterator[Ragged]:
    """Yield the ragged arrays of a granule."""
    for path, array in granule.arrays.items():
        for attribute in ("sample_dimension", "instance_dimension"):
            name = array.attrs.get(attribute)
            named = [dimension for dimension in dimensions if dimension.name == name]
            if array.ndim != 1 or not named:
                continue
            named.sort(key=lambda dimension: distance(parent(path), dimension.group))
            own, other = map(dimensions.resolve, (dimensions.by_array[path][0], named[0]))
            if attribute == "instance_dimension":
                yield Ragged(path, other, own, None)
                continue
            counts = np.nan_to_num(granule.values(path)).astype(np.int64)
            ends = np.concatenate([[0], counts.cumsum()])
            yield Ragged(path, own, other, ends)


def cut_ragged(
    windows: Mapping[Dimension, Window], ragged: Sequence[Ragged]
) -> dict[Dimension, Window]:
    """Return the windows of instances and samples of contiguous ragged arrays: instances whole."""
    cut = dict(windows)
    # Samples of one may be the instances of another.
    for own in [*ragged] * len(ragged):
        if own.ends is None or cut.keys().isdisjoint((own.instances, own.samples)):
            continue
        instances = cut.get(own.instances, NOTHING)
        if (samples := cut.get(own.samples, NOTHING)) != NOTHING:
            instances = union(instances, own.instances_of(samples))
        cut[own.instances] = instances
        cut[own.samples] = own.samples_of(instances)
    return cut
