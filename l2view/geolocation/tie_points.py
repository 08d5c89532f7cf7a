"""Tie points: which dimensions hold them, and windows that keep them with their data.

Tie point `i` lies at `offset + increment * i` of the data. Windows begin so far before what touches
a place that this stays true, and reach so far that data there lies between tie points.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product

from l2view.geolocation.coordinates import ancestors, are_levels
from l2view.geolocation.dimensions import Dimension, GranuleDimensions
from l2view.geolocation.granule import LocatedGranule
from l2view.geolocation.struct_metadata import read_structures
from l2view.geolocation.windows import NOTHING, Window, union

SENTINEL_3 = {
    "al_subsampling_factor": ("tie_rows", "rows"),
    "ac_subsampling_factor": ("tie_columns", "columns"),
}
"""The attributes with the increment of Sentinel-3's dimensions of tie points."""

SNAP_DIMENSION = re.compile(r"tp_([yx])\d*")
"""What SNAP calls the dimensions of tie points; those of data are ``y`` and ``x``."""


@dataclass(frozen=True)
class TiePoints:
    """A dimension of tie points, and that of their data."""

    ties: Dimension
    data: Dimension
    offset: float
    increment: int

    @property
    def is_consistent(self) -> bool:
        """Whether the tie points reach along all of the data, and not far beyond."""
        last = self.offset + self.increment * (self.ties.length - 1)
        return self.increment > 0 and abs(last - self.data.length) <= 2 * self.increment

    def ties_around(self, window: Window) -> Window:
        """Return the tie points between which data lies."""
        start, stop = window
        first = math.floor((start - self.offset) / self.increment)
        last = math.ceil((stop - 1 - self.offset) / self.increment)
        return _clip(first, last + 1, self.ties.length)

    def data_around(self, window: Window) -> Window:
        """Return the data that has some tie points as its nearest."""
        (start, stop), length = window, self.data.length
        first = math.floor(self.offset + self.increment * (start - 0.5)) if start else 0
        last = math.ceil(self.offset + self.increment * (stop - 0.5)) + 1
        return _clip(first, last if stop < self.ties.length else length, length)

    def end_of_data(self, stop: int) -> int:
        """Return where data ends that reaches as far beyond its last tie point as all data does."""
        return self.data.length - self.increment * (self.ties.length - stop)


def _clip(start: int, stop: int, length: int) -> Window:
    return max(min(start, length - 1), 0), max(min(stop, length), 1)


def declared_tie_points(granule: LocatedGranule, dimensions: GranuleDimensions) -> list[TiePoints]:
    """Return the tie points that a granule declares; links dimensions that it says are the same."""
    declared = [
        *_hdf_eos(granule, list(dimensions)),
        *_sentinel_3(granule, list(dimensions)),
        *_snap(granule, dimensions),
    ]
    consistent = [tie_points for tie_points in declared if tie_points.is_consistent]
    for i, own in enumerate(consistent):
        for other in consistent[:i]:
            for a, b in ((own.ties, other.ties), (own.data, other.data)):
                if a[1:] == b[1:]:
                    dimensions.link(a, b)
    resolved = (
        replace(own, ties=dimensions.resolve(own.ties), data=dimensions.resolve(own.data))
        for own in consistent
    )
    return list(dict.fromkeys(resolved))


def _hdf_eos(granule: LocatedGranule, dimensions: Sequence[Dimension]) -> Iterator[TiePoints]:
    """Yield the dimension maps of swaths (HDF-EOS Library User's Guide, Structural Metadata)."""

    def named(name: str, swath: str) -> list[Dimension]:
        return [
            dimension
            for dimension in dimensions
            if dimension.name in (name, f"{name}:{swath}")
            and ("SWATHS" not in (path := dimension.group.split("/")) or swath in path)
        ]

    for structure in read_structures(granule.table.groups[""].attributes, granule.arrays):
        for ties, data, offset, increment in structure.maps:
            # A negative increment is of locations that are denser than the data.
            names = (ties, data) if increment > 0 else (data, ties)
            for own, other in product(*(named(name, structure.name) for name in names)):
                yield TiePoints(own, other, abs(offset), abs(increment))


def _sentinel_3(granule: LocatedGranule, dimensions: Sequence[Dimension]) -> Iterator[TiePoints]:
    """Yield the tie points of Sentinel-3's files, of which each may be a group."""
    for group, table in granule.table.groups.items():
        for attribute, names in SENTINEL_3.items():
            increment = table.attributes.get(attribute)
            if isinstance(increment, int):
                ties, data = ([d for d in dimensions if d.name == name] for name in names)
                ties = [d for d in ties if group in (d.group, *ancestors(d.group))]
                for own, other in product(ties, data):
                    yield TiePoints(own, other, 0, increment)


def _snap(granule: LocatedGranule, dimensions: GranuleDimensions) -> Iterator[TiePoints]:
    """Yield the tie points of netCDF files that SNAP wrote."""
    for path, array in granule.arrays.items():
        for ties in dimensions.by_array[path]:
            match = SNAP_DIMENSION.fullmatch(ties.name)
            if match is None:
                continue
            offset, increment = (
                array.attrs.get(f"{name}_{match[1]}") for name in ("offset", "subsampling")
            )
            for data in dimensions:
                if (
                    isinstance(offset, int | float)
                    and isinstance(increment, int | float)
                    and increment == int(increment)
                    and data[:2] == (ties.group, match[1])
                ):
                    yield TiePoints(ties, data, offset, int(increment))


def unshared_ties(ties: Sequence[Dimension], data: Sequence[Dimension]) -> list[Dimension]:
    """Return the dimensions of a swath between whose points data may lie, none where it doesn't.

    It has so many times their cells; levels and bands aren't between points. A dimension that both
    have by its name is sure to be the same.
    """
    pairs = [*zip(ties, data, strict=True)]
    pairs = [(own, other) for own, other in pairs if own != other or not own.is_named]
    for own, other in pairs:
        factor = max(round(other.length / max(own.length, 1)), 1)
        is_multiple = abs(other.length - factor * own.length) < factor
        if own.length < 2 or not is_multiple or are_levels(other.name):
            return []
    return [own for own, _ in pairs]


def cut_tie_points(
    windows: Mapping[Dimension, Window], tie_points: Sequence[TiePoints]
) -> dict[Dimension, Window]:
    """Return the windows of dimensions of tie points and of their data, where a place touches any.

    Where both are located, tie points go by their data.
    """
    cut: dict[Dimension, Window] = {}
    for connected in _connected(tie_points):
        ties, data = {own.ties for own in connected}, {own.data for own in connected}
        needed = {d: windows[d] for d in data & windows.keys()}
        needed = needed or {d: windows[d] for d in ties & windows.keys()}
        if not any(stop for _, stop in needed.values()):
            cut |= dict.fromkeys(ties | data if needed else (), NOTHING)
            continue
        needed = {d: window for d, window in needed.items() if window != NOTHING}
        for _ in range(len(connected) + 1):
            for own in connected:
                if own.data in needed:
                    around = own.ties_around(needed[own.data])
                    needed[own.ties] = union(needed.get(own.ties, NOTHING), around)
                elif own.ties in needed:
                    needed[own.data] = own.data_around(needed[own.ties])
        steps = _steps(connected)
        count = min(needed[d][0] // step for d, step in steps.items())
        cut |= {d: (count * step, needed[d][1]) for d, step in steps.items()}
        for own in connected:
            start, stop = cut[own.data]
            cut[own.data] = start, max(stop, own.end_of_data(cut[own.ties][1]))
    return cut


def _connected(tie_points: Sequence[TiePoints]) -> list[list[TiePoints]]:
    """Return tie points in sets that share no dimension."""
    sets: list[list[TiePoints]] = []
    for own in tie_points:
        sharing = [s for s in sets if any({own.ties, own.data} & {o.ties, o.data} for o in s)]
        sets = [s for s in sets if s not in sharing]
        sets.append([own, *(other for s in sharing for other in s)])
    return sets


def _steps(connected: Sequence[TiePoints]) -> dict[Dimension, int]:
    """Return by how much each dimension can move so that tie points stay where they are."""
    rates = {connected[0].ties: Fraction(1)}
    for _ in connected:
        for own in connected:
            if own.ties in rates:
                rates.setdefault(own.data, rates[own.ties] * own.increment)
            elif own.data in rates:
                rates[own.ties] = rates[own.data] / own.increment
    common = math.lcm(*(rate.denominator for rate in rates.values()))
    divisor = math.gcd(*(int(rate * common) for rate in rates.values()))
    return {dimension: int(rate * common) // divisor for dimension, rate in rates.items()}
