"""Several images of one place as one: the first, the last, the least, or their mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from l2view.errors import QueryError
from l2view.regrid.values import cast
from l2view.regrid.warp import Piece, Target
from l2view.text import unknown_name

type ReduceName = Literal["first", "last", "min", "max", "mean", "median", "count"]
"""The ways to make one of several that have names."""

REDUCES: tuple[str, ...] = get_args(ReduceName.__value__)

type Reduce = ReduceName | Callable[[np.ma.MaskedArray[Any, Any]], Any]
"""A name, or what is called with all images of a window, of shape (images, rows, columns)."""


@dataclass(frozen=True)
class Offer:
    """What one image could give a part of an output window, before it is read.

    Attributes
    ----------
    target
        The part.
    read
        Reads it, or no more than what lies within a part of it.
    """

    target: Target
    read: Callable[[Target], Iterator[Piece]]


type Image = Sequence[Offer]
"""All that one image could give."""


@dataclass(frozen=True, eq=False)
class Composed:
    """Values of a window.

    Attributes
    ----------
    values
        Of its shape.
    valid
        Of its shape, False where there is nothing; None where there is something everywhere.
    """

    values: NDArray[Any]
    valid: NDArray[np.bool_] | None


def require_reduce(said: Any) -> None:
    """Raise where there is no such composite.

    Raises
    ------
    QueryError
        Naming those that there are.
    """
    if not callable(said) and not (isinstance(said, str) and said in REDUCES):
        raise QueryError(f"{unknown_name('reduce', str(said), REDUCES)}; or pass a function")


def composed(
    images: Iterable[Image], shape: tuple[int, int], dtype: np.dtype[Any], reduce: Reduce
) -> Composed:
    """Return several images as one.

    Parameters
    ----------
    images
        In the order in which they are composed; each is asked for when it is needed.
    shape
        Of the window.
    dtype
        Of the result of what takes pixels as they are; of means and medians at least of floats.
    reduce
        How.

    Raises
    ------
    QueryError
        Where a function gives something else than an image.
    """
    if reduce in ("first", "last"):  # those of the last come in the opposite order
        return _first(images, shape, dtype)
    if reduce == "count":
        return _count(images, shape)
    if reduce in ("min", "max"):
        return _extreme(images, shape, dtype, np.minimum if reduce == "min" else np.maximum)
    if reduce == "mean":
        return _mean(images, shape)
    stack = _stacked(images, shape, dtype)
    if not len(stack):
        return _nothing(shape, dtype)
    return _median(stack) if reduce == "median" else _called(reduce, stack)


def _nothing(shape: tuple[int, int], dtype: np.dtype[Any]) -> Composed:
    return Composed(np.zeros(shape, dtype), np.zeros(shape, bool))


def _first(images: Iterable[Image], shape: tuple[int, int], dtype: np.dtype[Any]) -> Composed:
    """Return what lies on top; images of what is full already aren't read."""
    values: NDArray[Any] | None = None
    filled = np.zeros(shape, bool)
    left = shape[0] * shape[1]
    for image in images:
        for offer in image:
            if left == 0:
                assert values is not None
                return Composed(values, None)
            target = offer.target if values is None else _left(filled, offer.target)
            if target is None:
                continue
            for piece in offer.read(target):
                whole = piece.values.shape == shape and piece.valid is None
                if whole and values is None:
                    return Composed(cast(piece.values, dtype), None)
                if values is None:
                    values = np.zeros(shape, dtype)
                left -= _paste(values, filled, piece)
    if values is None:
        return _nothing(shape, dtype)
    return Composed(values, None if left == 0 else filled)


def _left(filled: NDArray[np.bool_], target: Target) -> Target | None:
    """Return the part of a target that holds all that isn't filled yet, None where all is."""
    sides = []
    for axis, side in ((1, target[0]), (0, target[1])):
        some = np.flatnonzero(~filled[target].all(axis=axis))
        if not len(some):
            return None
        sides.append(slice(side.start + int(some[0]), side.start + int(some[-1]) + 1))
    return sides[0], sides[1]


def _paste(values: NDArray[Any], filled: NDArray[np.bool_], piece: Piece) -> int:
    """Put a piece where nothing is yet, and return of how many pixels."""
    there = ~filled[piece.target]
    if piece.valid is not None:
        there &= piece.valid
    count = int(np.count_nonzero(there))
    if count:
        made = cast(piece.values, values.dtype)
        if count == there.size:
            values[piece.target] = made
            filled[piece.target] = True
        else:
            np.copyto(values[piece.target], made, where=there)
            filled[piece.target] |= there
    return count


def _layers(images: Iterable[Image], shape: tuple[int, int]) -> Iterator[Piece]:
    """Yield a piece for each image that gives something, no pixel of one image twice."""
    for image in images:
        pieces = [piece for offer in image for piece in offer.read(offer.target)]
        if len(pieces) > 1:
            dtype = np.result_type(*(piece.values for piece in pieces))
            target = (slice(0, shape[0]), slice(0, shape[1]))
            values, filled = np.zeros(shape, dtype), np.zeros(shape, bool)
            for piece in pieces:
                _paste(values, filled, piece)
            yield Piece(target, values, filled)
        elif pieces:
            yield pieces[0]


def _stacked(
    images: Iterable[Image], shape: tuple[int, int], dtype: np.dtype[Any]
) -> np.ma.MaskedArray[Any, Any]:
    """Return images on top of one another, masked where they give nothing."""
    layers = []
    for piece in _layers(images, shape):
        values, filled = np.zeros(shape, dtype), np.zeros(shape, bool)
        if _paste(values, filled, piece):
            layers.append(np.ma.MaskedArray(values, ~filled))
    if not layers:
        return np.ma.MaskedArray(np.zeros((0, *shape), dtype))
    return np.ma.stack(layers)


def _count(images: Iterable[Image], shape: tuple[int, int]) -> Composed:
    found = np.zeros(shape, np.int32)
    for piece in _layers(images, shape):
        found[piece.target] += 1 if piece.valid is None else piece.valid
    return Composed(found, None)


def _extreme(
    images: Iterable[Image],
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    choose: Callable[..., Any],
) -> Composed:
    values, filled = np.zeros(shape, dtype), np.zeros(shape, bool)
    for piece in _layers(images, shape):
        there = np.ones(piece.values.shape, bool) if piece.valid is None else piece.valid
        own, made = values[piece.target], cast(piece.values, dtype)
        before = filled[piece.target]
        choose(own, made, out=own, where=there & before)
        np.copyto(own, made, where=there & ~before)
        before |= there
    return Composed(values, None if filled.all() else filled)


def _mean(images: Iterable[Image], shape: tuple[int, int]) -> Composed:
    total, count = np.zeros(shape), np.zeros(shape, np.int32)
    for piece in _layers(images, shape):
        where: Any = True if piece.valid is None else piece.valid
        own = total[piece.target]
        np.add(own, piece.values, out=own, where=where)
        count[piece.target] += where
    found = np.divide(total, count, out=total, where=count > 0)
    return Composed(found, None if count.all() else count > 0)


def _median(stack: np.ma.MaskedArray[Any, Any]) -> Composed:
    mask = np.ma.getmaskarray(stack)
    floats = np.result_type(stack.dtype, np.float32)
    values = np.where(mask, np.nan, stack.data.astype(floats))
    values.sort(axis=0)  # with NaN at the end
    count = (~mask).sum(axis=0)
    low = np.maximum((count - 1) // 2, 0)[None]
    high = np.minimum(count // 2, len(values) - 1)[None]
    pair = [np.take_along_axis(values, at, axis=0)[0] for at in (low, high)]
    found = pair[0] / 2 + pair[1] / 2
    return Composed(found, None if (count > 0).all() else count > 0)


def _called(reduce: Any, stack: np.ma.MaskedArray[Any, Any]) -> Composed:
    """Return what a function makes of a stack.

    Raises
    ------
    QueryError
        Where that is no image.
    """
    found = reduce(stack)
    values = np.ma.getdata(found)
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
    if np.ma.isMaskedArray(found):
        valid &= ~np.ma.getmaskarray(found)
    if values.dtype.kind == "f":
        valid &= values == values
    return Composed(values, None if valid.all() else valid)
