"""Outlines of few vertices that hold all that those of many vertices hold."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from l2view.geolocation.globe import GLOBE

SCENE, ORBIT = 64, 128  # the most vertices of an outline, by its length
LONG = 180.0  # the length in degrees from which an outline is that of an orbit
GOAL = 48  # the vertices below which only those are taken that say nothing
GROWTH = (0.008, 0.002, 0.05)
"""The parts by which an outline may grow; the last where it has too many vertices else."""

TRIANGLE = 4  # the vertices of the least polygon
GAP = 2**-10  # the first gaps that are closed where that isn't enough, in parts of the extent
NEGLIGIBLE = 1e-6  # the part of an outline's area that says nothing


def simplify_outward(shape: shapely.Geometry) -> shapely.Geometry:
    """Return polygons within ±180° and ±90° with few vertices, which hold the others.

    Vertices are taken where the outline is hollow, and edges where their neighbours meet beyond
    them, those first that add the least area on the sphere. Where parts and hollows are too many,
    ever wider gaps are closed.
    """
    west, south, east, north = shape.bounds
    extent = max(east - west, north - south)
    simplest, gap = _simplest(shape), GAP * extent
    while _most(simplest) < shapely.get_num_coordinates(simplest):
        wide = shape.buffer(gap, join_style="mitre").simplify(gap / 4)
        closed = (
            wide.buffer(-0.7 * gap, quad_segs=2) if gap < extent else shapely.box(*shape.bounds)
        )
        simplest = _simplest(shapely.intersection(shapely.union(closed, shape), GLOBE))
        gap *= 2
    return simplest


def _most(shape: shapely.Geometry) -> int:
    return ORBIT if shape.length > LONG else SCENE


def _simplest(shape: shapely.Geometry) -> shapely.Geometry:
    """Return polygons that grow by some per cent at most."""
    vertices = shapely.get_num_coordinates(shape)
    if TRIANGLE * len(shapely.get_parts(shape)) > _most(shape):
        return shape
    simplest, area = shape, sphere_area(shape)
    for growth in GROWTH:
        enough = _most(simplest) if simplest is not shape else GOAL
        if shapely.get_num_coordinates(simplest) <= enough:
            break
        simple = _simplify(shape, growth, GOAL if growth < GROWTH[-1] else _most(shape))
        # A vertex that is taken may let edges cross.
        holds = simple.is_valid and shape.difference(simple).area <= NEGLIGIBLE**2 * shape.area
        if holds and sphere_area(simple) <= area * (1 + 1.25 * growth):
            count = shapely.get_num_coordinates(simple)
            if count < vertices:
                simplest, vertices = simple, count
    return simplest


def sphere_area(shape: shapely.Geometry) -> float:
    """Return the area of polygons on the sphere, whose square degrees at the equator are 1."""
    area = 0.0
    for polygon in shapely.get_parts(shape):
        for ring, sign in ((polygon.exterior, 1), *((hole, -1) for hole in polygon.interiors)):
            area += sign * _ring_area(ring)
    return area


def _ring_area(ring: shapely.LinearRing) -> float:
    x, y = shapely.get_coordinates(ring).T
    y = np.radians(y)
    middle, half = (y[1:] + y[:-1]) / 2, np.diff(y) / 2
    # The mean sine along an edge, which is straight on the map.
    return abs(float(np.degrees((np.diff(x) * np.sin(middle) * np.sinc(half / np.pi)).sum())))


def _simplify(shape: shapely.Geometry, growth: float, goal: int) -> shapely.Geometry:
    """Return polygons with about `goal` vertices, or whose area has grown by the part `growth`."""
    area = sphere_area(shape)
    least, left = NEGLIGIBLE * area, growth * area
    polygons: list[list[NDArray[np.float64]]] = []
    for polygon in shapely.get_parts(shapely.orient_polygons(shape)):
        holes = [hole for hole in polygon.interiors if _ring_area(hole) > growth / 20 * area]
        left -= sum(map(_ring_area, polygon.interiors)) - sum(map(_ring_area, holes))
        edges = (polygon.exterior, *holes)
        polygons.append([shapely.get_coordinates(ring)[:-1] for ring in edges])
    limit, count = least, sum(len(ring) + 1 for rings in polygons for ring in rings)
    while limit <= growth * area and left > 0:
        before = left, count
        for rings in polygons:
            for number, ring in enumerate(rings):
                if len(ring) < 4:  # a triangle
                    continue
                rings[number], spent = _take(ring, limit, least, left, count - goal)
                left, count = left - spent, count - len(ring) + len(rings[number])
        if before == (left, count):
            limit *= 4
    parts = [shapely.Polygon(rings[0], rings[1:]) for rings in polygons]
    if len(parts) == 1:
        return parts[0]
    separate = all(part.is_valid for part in parts)
    return shapely.union_all(parts) if separate else shapely.multipolygons(parts)


def _take(
    ring: NDArray[np.float64], limit: float, least: float, left: float, surplus: int
) -> tuple[NDArray[np.float64], float]:
    """Take vertices of a ring with the shape on its left; return what stays, and the area added.

    None adds more than `limit`, all no more than `left`; `surplus` of them more than `least`.
    """
    before, after, next_after = (np.roll(ring, shift, axis=0) for shift in (1, -1, -2))
    to_here, edge, back = ring - before, after - ring, after - next_after
    turn = _cross(to_here, edge)
    cosine = np.cos(np.radians(ring[:, 1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        both = _cross(to_here, back)
        along, behind = _cross(edge, back) / both, _cross(edge, to_here) / both
        corner = ring + along[:, None] * to_here
        added = np.abs(_cross(corner - ring, edge)) / 2 * cosine
        meet = (turn > 0) & (np.roll(turn, -1) > 0) & (along > 0) & (behind > 0)
        meet &= (np.abs(corner) <= (180, 90)).all(axis=1)
    hollow = turn <= 0
    cost = np.where(hollow, -turn / 2 * cosine, np.where(meet, added, np.inf))
    stays, spent, count = np.ones(len(ring), dtype=bool), 0.0, len(ring)
    staying = count
    blocked = np.zeros(count, dtype=bool)
    ring = ring.copy()
    for vertex in np.argsort(cost, kind="stable"):
        price = float(cost[vertex])
        if price > limit or spent + price > left or (surplus <= 0 and price > least):
            break
        if staying <= (3 if hollow[vertex] else 4):
            break
        around = np.arange(vertex - 3, vertex + 4) % count
        if blocked[around].any():
            continue
        blocked[around] = True
        if hollow[vertex]:
            stays[vertex] = False
        else:
            ring[vertex], stays[(vertex + 1) % count] = corner[vertex], False
        spent, surplus, staying = spent + price, surplus - 1, staying - 1
    return ring[stays], spent


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
