"""Rows of metadata as the arrays of ``/meta``: their types, their NULLs, their growth."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.dtype import VariableLengthBytes

from l2view.arrays.cf import Packing
from l2view.arrays.quiet import QUIET
from l2view.errors import FieldError
from l2view.limits import limits
from l2view.meta.schema import GEOMETRIES, ROW
from l2view.stores.hierarchy import JSON, resolve
from l2view.text import replace_surrogates

type Kind = Literal["string", "int", "float", "bool", "time", "bytes"]  # what a field holds
type Value = str | int | float | bool | datetime | bytes | None  # what a field holds of one granule
INT_NULL = -(2**63)  # the integer that stands for NULL
BOOL_NULL = -1  # the same of a field of booleans, which is stored as int8, as xarray stores it
EXACT = 2**53  # the largest integer up to which a float holds every one (IEEE 754 binary64)

TOO_LARGE = "has integers beyond 2⁵³, which a float can't hold; make all of them texts"

KINDS: Mapping[Kind, tuple[type, Any, Any]] = {
    "string": (str, "string", ""),
    "bool": (bool, "int8", BOOL_NULL),
    "int": (int, "int64", INT_NULL),
    "float": (float, "float64", math.nan),
    "time": (datetime, "datetime64[us]", np.datetime64("NaT", "us")),
    "bytes": (bytes, VariableLengthBytes(), b""),
}
"""The type of each kind's values in Python, as what zarr stores them, and what is NULL there."""

ATTRIBUTES: Mapping[Kind, JSON] = {
    "string": {"_FillValue": ""},
    "int": {"_FillValue": INT_NULL},
    "bool": {"_FillValue": BOOL_NULL, "dtype": "bool"},
}
"""The attributes by which xarray reads the same; the other kinds need none."""


def plain(name: str, value: Any) -> Value:
    """Convert a value to what a field can hold: lists and objects as JSON, times in UTC.

    A `FieldError` is raised where no field can hold it.
    """
    if isinstance(value, np.datetime64):
        value = None if np.isnat(value) else value.astype("datetime64[us]").item()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(UTC).replace(tzinfo=None)
        return None if value != value else value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    if isinstance(value, int) and not INT_NULL < int(value) < 2**63:
        raise FieldError(f'the field "{name}" is {value}, which needs more than 64 bits')
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple | dict):
        return replace_surrogates(json.dumps(_with_text_keys(value), sort_keys=True, default=str))
    if isinstance(value, str):
        return replace_surrogates(value)
    if value is None or isinstance(value, int | float | bool | bytes):
        return value
    raise FieldError(f'the field "{name}" is a {type(value).__name__}, which no field can hold')


def _with_text_keys(value: Any) -> Any:
    """Make the names of objects texts, which can be sorted."""
    if isinstance(value, dict):
        return {str(name): _with_text_keys(item) for name, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list | tuple) else value


def kind_of(value: Value) -> Kind | None:
    """Kind of field that holds `value`, None for NULL."""
    kinds: dict[type, Kind] = {cls: kind for kind, (cls, _, _) in KINDS.items()}
    return next((kinds[cls] for cls in type(value).__mro__ if cls in kinds), None)


def kind_of_array(array: zarr.Array[Any]) -> Kind:
    """Kind of an existing field. A `FieldError` is raised where it is none that is written here."""
    name, dtype = array.basename, array.dtype
    if array.attrs.get("dtype") == "bool":
        kind: Kind | None = "bool" if dtype == np.int8 else None
    elif dtype.kind in "TO":
        kind = "string" if dtype.kind == "T" else "bytes"
    else:
        exact: dict[str, Kind] = {"int64": "int", "float64": "float", "datetime64[us]": "time"}
        kind = exact.get(str(dtype))
    if kind is None:
        # Another width would cut values short without a word.
        raise FieldError(f'the field "{name}" is {dtype}, to which ingest can\'t add')
    packing = Packing.of(dict(array.attrs), dtype)
    if dtype.kind in "if" and (packing.is_scaled or packing.is_time):
        raise FieldError(f'the field "{name}" is packed, to which ingest can\'t add')
    null = ATTRIBUTES.get(kind, {}).get("_FillValue")
    if array.attrs.get("_FillValue") != null:
        raise FieldError(
            f'the field "{name}" has {array.attrs.get("_FillValue")!r} for NULL, where ingest '
            f"writes {null!r}"
        )
    return kind


def require_field_name(name: str) -> None:
    """Raise a `FieldError` where no field can be called so: Zarr, SQL or l2view mean another."""
    text = replace_surrogates(name)
    is_path = name and text == name and "/" not in name and resolve(name) == name
    if not is_path or name == ROW or name.startswith("__"):
        raise FieldError(f'a field can\'t be called "{text}"')


class Kinds:
    """The kinds of a collection's fields, those `known` and others as granules come in.

    `is_exact` tells of a field whether its integers are the same as floats.
    """

    def __init__(
        self, known: Mapping[str, Kind], is_exact: Callable[[str], bool] = lambda name: True
    ) -> None:
        self.known: dict[str, Kind] = dict(known)
        self._is_exact = is_exact
        self._large: set[str] = set()

    def add(self, row: Mapping[str, Value]) -> None:
        """Take in one granule's row, all of it or nothing.

        A `FieldError` names the field and both kinds.
        """
        kinds: dict[str, Kind] = {}
        large: set[str] = set()
        for name, value in row.items():
            require_field_name(name)
            if name in GEOMETRIES and not isinstance(value, bytes | None):
                raise FieldError(f'the field "{name}" is a footprint, as WKB, and not {value!r}')
            current, new = self.known.get(name), kind_of(value)
            kind = current or new
            if current is not None and new is not None and current != new:
                if {current, new} != {"int", "float"}:
                    raise FieldError(f'the field "{name}" is {new}, and {current} so far')
                kind = "float"
            if kind is not None:
                kinds[name] = kind
            if isinstance(value, int) and abs(value) > EXACT:
                large.add(name)
            widens = kind == "float" and self.known.get(name) == "int"
            if widens and (name in self._large or not self._is_exact(name)):
                raise FieldError(f'the field "{name}" is {value!r}, and {TOO_LARGE}')
            if kind == "float" and name in large:
                raise FieldError(f'the field "{name}" is {value!r}: {TOO_LARGE}')
        self.known.update(kinds)
        self._large |= large


def column(kind: Kind, values: Iterable[Value]) -> NDArray[Any]:
    """Convert values to the NumPy array that is stored."""
    _, dtype, null = KINDS[kind]
    filled = [null if value is None else value for value in values]
    if kind == "bytes":
        array = np.empty(len(filled), dtype=object)
        array[:] = filled
        return array
    return np.array(filled, dtype=np.dtypes.StringDType() if kind == "string" else dtype)


def create(group: zarr.Group, name: str, kind: Kind, rows: int) -> zarr.Array[Any]:
    """Create a field of `rows` rows, all of them NULL."""
    _, dtype, null = KINDS[kind]
    return group.create_array(
        name,
        shape=(rows,),
        chunks=(limits().field_chunk_rows,),
        dtype=dtype,
        fill_value=null,
        attributes=ATTRIBUTES.get(kind, {}),
    )


def are_exact(values: NDArray[np.int64]) -> bool:
    """Whether floats hold these integers exactly, NULL left out."""
    valid = values[values != INT_NULL]
    return bool(valid.size == 0 or (valid.min() >= -EXACT and valid.max() <= EXACT))


def widen_to_float(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Make a field of integers one of floats, and return it."""
    old = group[name]
    assert isinstance(old, zarr.Array)
    values = np.asarray(old[:])
    floats = np.where(values == INT_NULL, math.nan, values.astype(np.float64))
    attributes = {key: value for key, value in old.attrs.items() if key != "_FillValue"}
    del group[name]
    array = create(group, name, "float", len(floats))
    array.attrs.update(attributes)
    array[:] = floats
    return array


def write(
    group: zarr.Group,
    kinds: Mapping[str, Kind],
    start: int,
    added: Sequence[Mapping[str, Value]],
    replaced: Mapping[int, Mapping[str, Value]],
) -> None:
    """Write rows of ``/meta``.

    There are `start` rows so far; `replaced` are put in the place of others, by their numbers. Each
    of `kinds` is a field that there is then.
    """
    with QUIET:  # of dtypes without a v3 specification
        for name, kind in sorted(kinds.items()):
            stop = start + len(added)
            array = _field(group, name, kind, stop)
            if array.shape != (stop,):
                array.resize((stop,))
            if added:
                array[start:stop] = column(kind, (row.get(name) for row in added))
            if replaced:
                values = (replaced[number].get(name) for number in sorted(replaced))
                array.oindex[np.array(sorted(replaced))] = column(kind, values)


def _field(group: zarr.Group, name: str, kind: Kind, rows: int) -> zarr.Array[Any]:
    """Open a field of this kind; create or widen it where needed."""
    if name not in group:
        return create(group, name, kind, rows)
    array = group[name]
    assert isinstance(array, zarr.Array)
    if kind == "float" and array.dtype.kind == "i":
        return widen_to_float(group, name)
    return array
