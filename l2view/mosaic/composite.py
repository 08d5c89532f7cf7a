"""Several images of one place as one: the first, the last, the least, or their mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from l2view.errors import QueryError
from l2view.regrid.warp import Masked, Target, Tile, cast
from l2view.text import unknown_name

type ReduceName = Literal["first", "last", "min", "max", "mean", "median", "count"]
"""The composites that have names."""

REDUCES: tuple[str, ...] = get_args(ReduceName.__value__)

type Reduce = ReduceName | Callable[[np.ma.MaskedArray[Any, Any]], Any]
"""A name, or a function of all images of a window, of shape (images, rows, columns)."""


type PendingTile = tuple[Target, Callable[[Target], Iterator[Tile]]]
"""A part of an output window that an image may give something, and what reads a part of that."""

type PendingImages = Iterable[Sequence[PendingTile]]  # all that each image could give
type Shape = tuple[int, int]  # rows and columns


def require_reduce(reduce: Any) -> None:
    """Raise a QueryError where there is no such composite."""
    if not callable(reduce) and not (isinstance(reduce, str) and reduce in REDUCES):
        raise QueryError(f"{unknown_name('reduce', str(reduce), REDUCES)}; or pass a function")


def composite(images: PendingImages, shape: Shape, dtype: np.dtype[Any], reduce: Reduce) -> Masked:
    """Return several images as one of a window's shape, of floats where they are averaged.

    They come in the order in which they are composed, those of ``"last"`` in the opposite, and are
    asked for when they are needed. What takes pixels as they are gives values of `dtype`.
    """
    if reduce in ("first", "last"):
        return _compose_first(images, shape, dtype)
    if reduce == "count":
        return _count(images, shape)
    if reduce in ("min", "max"):
        return _extreme(images, shape, dtype, np.minimum if reduce == "min" else np.maximum)
    if reduce == "mean":
        return _mean(images, shape)
    stack = _stack(images, shape, dtype)
    if not len(stack):
        return _nothing(shape, dtype)
    return _median(stack) if reduce == "median" else _call(reduce, stack)


def _nothing(shape: Shape, dtype: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    return np.zeros(shape, dtype), np.zeros(shape, bool)


def _with_valid(values: NDArray[Any], valid: NDArray[np.bool_]) -> Masked:
    return values, None if valid.all() else valid


def _compose_first(images: PendingImages, shape: Shape, dtype: np.dtype[Any]) -> Masked:
    """Compose what lies on top; what lies under filled pixels isn't read."""
    values: NDArray[Any] | None = None
    filled = np.zeros(shape, bool)
    remaining = shape[0] * shape[1]
    for pending, read in chain.from_iterable(images):
        if remaining == 0:
            break
        target = pending if values is None else _unfilled_part(filled, pending)
        for tile in () if target is None else read(target):
            if values is None:
                if tile.values.shape == shape and tile.valid is None:
                    return cast(tile.values, dtype), None
                values = np.zeros(shape, dtype)
            remaining -= _paste(values, filled, tile)
    if values is None:
        return _nothing(shape, dtype)
    return values, None if remaining == 0 else filled


def _unfilled_part(filled: NDArray[np.bool_], target: Target) -> Target | None:
    """Return the part of a target that holds all unfilled pixels, None where there are none."""
    rows, columns = (np.flatnonzero(~filled[target].all(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    top, left = (side.start for side in target)
    return (
        slice(top + int(rows[0]), top + int(rows[-1]) + 1),
        slice(left + int(columns[0]), left + int(columns[-1]) + 1),
    )


def _paste(values: NDArray[Any], filled: NDArray[np.bool_], tile: Tile) -> int:
    """Put a tile's values into pixels that aren't filled, and return how many these are."""
    empty = ~filled[tile.target]
    if tile.valid is not None:
        empty &= tile.valid
    np.copyto(values[tile.target], cast(tile.values, values.dtype), where=empty)
    filled[tile.target] |= empty
    return int(np.count_nonzero(empty))


def _layers(images: PendingImages, shape: Shape) -> Iterator[Tile]:
    """Yield one tile for each image that gives something."""
    for image in images:
        tiles = [tile for target, read in image for tile in read(target)]
        if len(tiles) > 1:
            dtype = np.result_type(*(tile.values for tile in tiles))
            values, filled = _nothing(shape, dtype)
            for tile in tiles:
                _paste(values, filled, tile)
            yield Tile((slice(0, shape[0]), slice(0, shape[1])), values, filled)
        elif tiles:
            yield tiles[0]


def _stack(
    images: PendingImages, shape: Shape, dtype: np.dtype[Any]
) -> np.ma.MaskedArray[Any, Any]:
    """Return images on top of one another, masked where they give nothing."""
    layers = []
    for tile in _layers(images, shape):
        values, filled = _nothing(shape, dtype)
        if _paste(values, filled, tile):
            layers.append(np.ma.MaskedArray(values, ~filled))
    if not layers:
        return np.ma.MaskedArray(np.zeros((0, *shape), dtype))
    return np.ma.stack(layers)


def _extreme(
    images: PendingImages, shape: Shape, dtype: np.dtype[Any], choose: Callable[..., Any]
) -> Masked:
    values, filled = _nothing(shape, dtype)
    for tile in _layers(images, shape):
        target, filled_before = values[tile.target], filled[tile.target]
        both = filled_before if tile.valid is None else filled_before & tile.valid
        choose(target, cast(tile.values, dtype), out=target, where=both)
        _paste(values, filled, tile)
    return _with_valid(values, filled)


def _count(images: PendingImages, shape: Shape) -> Masked:
    counts = np.zeros(shape, np.int32)
    for tile in _layers(images, shape):
        counts[tile.target] += 1 if tile.valid is None else tile.valid
    return counts, None


def _mean(images: PendingImages, shape: Shape) -> Masked:
    total, count = np.zeros(shape), np.zeros(shape, np.int32)
    for tile in _layers(images, shape):
        valid: Any = True if tile.valid is None else tile.valid
        target = total[tile.target]
        np.add(target, tile.values, out=target, where=valid)
        count[tile.target] += valid
    return _with_valid(np.divide(total, count, out=total, where=count > 0), count > 0)


def _median(stack: np.ma.MaskedArray[Any, Any]) -> Masked:
    mask = np.ma.getmaskarray(stack)
    floats = np.result_type(stack.dtype, np.float32)
    values = np.where(mask, np.nan, stack.data.astype(floats))
    values.sort(axis=0)  # with NaN at the end
    count = (~mask).sum(axis=0)
    low = np.maximum((count - 1) // 2, 0)[None]
    high = np.minimum(count // 2, len(values) - 1)[None]
    lower, upper = (np.take_along_axis(values, at, axis=0)[0] for at in (low, high))
    return _with_valid(lower / 2 + upper / 2, count > 0)


def _call(reduce: Any, stack: np.ma.MaskedArray[Any, Any]) -> Masked:
    """Return a function's image of a stack, or raise a QueryError where it isn't one."""
    result = reduce(stack)
    values = np.ma.getdata(result)
    if values.dtype.kind not in "iufb":
        raise QueryError(
            f"the function of reduce= gave {values.dtype}: it has to make numbers of numbers"
        )
    if values.shape != stack.shape[1:]:
        raise QueryError(
            f"the function of reduce= gave something of shape {values.shape}: of images of shape "
            f"{stack.shape} it has to make one of {stack.shape[1:]}"
        )
    valid = ~np.ma.getmaskarray(stack).all(axis=0)
    if np.ma.isMaskedArray(result):
        valid &= ~np.ma.getmaskarray(result)
    if values.dtype.kind == "f":
        valid &= values == values
    return _with_valid(values, valid)
