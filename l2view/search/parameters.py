"""The values of a query's ``$name`` placeholders, as SQL has them and as JSON does.

What JSON has no form for is an object with one name, which says what it is; such an object is
taken for the value that it stands for, so that a recorded query can be asked again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from l2view.errors import QueryError

FORMS: Mapping[str, Callable[[Any], Any]] = {
    "bytes": bytes.fromhex,
    "date": date.fromisoformat,
    "decimal": Decimal,
    "duration_ns": lambda text: np.timedelta64(int(text), "ns"),
    "float": float,
    "geometry": shapely.from_wkt,
    "time": time.fromisoformat,
    "timestamp": lambda text: np.datetime64(text.removesuffix("Z")),
}
"""Makes a value that JSON has no form for, of the text that stands for it."""


def parameters(params: Mapping[str, Any] | None) -> dict[str, pa.Scalar]:
    """Return the values of a query's placeholders as Arrow scalars (see `scalar`)."""
    if params is not None and not isinstance(params, Mapping):
        raise QueryError(f"params= maps names to values, and is no {type(params).__name__}")
    return {name: scalar(name, value) for name, value in (params or {}).items()}


def scalar(name: str, value: Any) -> pa.Scalar:
    """Return one value as an Arrow scalar: a geometry as WKB, an instant in UTC.

    A `QueryError` is raised where SQL has no value for it.
    """
    try:
        return _scalar(value)
    except QueryError as error:
        raise QueryError(f"the parameter ${name} {error}") from error
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise QueryError(
            f"the parameter ${name} is a {type(value).__name__}, which SQL has no value for: "
            f"{error}"
        ) from error


def _scalar(value: Any) -> pa.Scalar:
    if isinstance(value, pa.TimestampScalar) and value.type.tz is not None:
        return value.cast(pa.timestamp(value.type.unit))
    if isinstance(value, pa.Scalar):
        return value
    if isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in FORMS:
        return _scalar(from_json(value))
    if isinstance(value, list | tuple):
        return pa.scalar([_scalar(item).as_py() for item in value])
    if isinstance(value, shapely.Geometry):
        if not np.isfinite(shapely.get_coordinates(value)).all():
            raise QueryError("has a coordinate that is NaN or infinite")
        return pa.scalar(shapely.to_wkb(value), pa.binary())
    if isinstance(value, np.datetime64 | np.timedelta64):
        unit = np.datetime_data(value.dtype)[0]
        resolution = unit if unit in ("ms", "us", "ns") else "s"
        return pa.array(np.array([value]).astype(f"{value.dtype.kind}8[{resolution}]"))[0]
    # pandas has nanoseconds, which a datetime or timedelta would lose.
    unit = "ns" if hasattr(value, "asm8") else "us"
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(tz=UTC).replace(tzinfo=None)
        return pa.scalar(value, pa.timestamp(unit))
    if isinstance(value, timedelta):
        return pa.scalar(value, pa.duration(unit))
    return pa.scalar(value)


def to_json(value: Any) -> Any:
    """Record a value as JSON, of which `from_json` makes the same value."""
    if isinstance(value, pa.Scalar):
        value = value.as_py()
    if isinstance(value, np.ndarray | list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {name: to_json(item) for name, item in value.items()}
    if isinstance(value, shapely.Geometry):
        return {"geometry": shapely.to_wkt(value, rounding_precision=-1)}
    if isinstance(value, np.datetime64):
        return {"timestamp": f"{value}Z"}
    if isinstance(value, np.timedelta64):
        return {"duration_ns": str(value.astype("timedelta64[ns]").astype(int))}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, datetime):
        return {"timestamp": f"{_scalar(value).as_py().isoformat()}Z"}
    if isinstance(value, date | time):
        return {type(value).__name__: value.isoformat()}
    if isinstance(value, timedelta):
        return {"duration_ns": str(_scalar(value).cast(pa.duration("ns")).value)}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, Decimal) or (isinstance(value, int) and value >= 2**63):
        return {"decimal": str(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def from_json(record: Any) -> Any:
    """Make the value that `to_json` recorded."""
    if isinstance(record, list | tuple):
        return [from_json(item) for item in record]
    if not isinstance(record, Mapping):
        return record
    if len(record) == 1 and (form := next(iter(record))) in FORMS:
        try:
            return FORMS[form](record[form])
        except (TypeError, ValueError, ArithmeticError, shapely.errors.ShapelyError) as error:
            raise QueryError(f"{form!r}: {record[form]!r} can't be read: {error}") from error
    return {name: from_json(item) for name, item in record.items()}


def as_texts(name: str, value: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """Check an argument that is one text or a list of texts."""
    if value is None:
        return None
    texts = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
    if not all(isinstance(text, str) for text in texts):
        raise QueryError(f"{name}= is a text or a list of texts, not {value!r}")
    return texts
