"""The values of a query's ``$name`` placeholders, as SQL has them and as JSON does.

What JSON has no form for is an object with one name, which says what it is; such an object is
taken for the value that it stands for, so that a recorded query can be asked again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
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
    "timestamp": lambda text: np.datetime64(text.removesuffix("Z")),
}
"""What JSON has no form for, and what makes it of the text that stands for it."""


def parameters(params: Mapping[str, Any] | None) -> dict[str, pa.Scalar]:
    """Return the values of a query's placeholders as Arrow scalars.

    Raises
    ------
    QueryError
        Where they are no mapping, or SQL has no value for one.
    """
    if params is not None and not isinstance(params, Mapping):
        raise QueryError(f"params= maps names to values, and is no {type(params).__name__}")
    return {name: scalar(name, value) for name, value in (params or {}).items()}


def scalar(name: str, value: Any) -> pa.Scalar:
    """Return one value as an Arrow scalar: a geometry as WKB, an instant in UTC.

    Raises
    ------
    QueryError
        Where SQL has no value for it.
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
    if isinstance(value, pa.Scalar):
        return value
    if isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in FORMS:
        form, text = next(iter(value.items()))
        return _scalar(FORMS[form](text))
    if isinstance(value, list | tuple):
        return pa.scalar([_scalar(part).as_py() for part in value])
    if isinstance(value, shapely.Geometry):
        if not np.isfinite(shapely.get_coordinates(value)).all():
            raise QueryError("has a coordinate that is NaN or infinite")
        return pa.scalar(shapely.to_wkb(value), pa.binary())
    if isinstance(value, np.datetime64 | np.timedelta64):
        unit = np.datetime_data(value.dtype)[0]
        kept = unit if unit in ("ms", "us", "ns") else "s"
        return pa.array(np.array([value]).astype(f"{value.dtype.kind}8[{kept}]"))[0]
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(tz=UTC).replace(tzinfo=None)
        # pandas has nanoseconds, which a datetime would lose.
        return pa.scalar(value, pa.timestamp("ns" if hasattr(value, "asm8") else "us"))
    return pa.scalar(value)


def to_json(value: Any) -> Any:
    """Return a value as JSON that `scalar` takes for the same."""
    if isinstance(value, pa.Scalar):
        value = value.as_py()
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
    if isinstance(value, date):
        return {"date": value.isoformat()}
    if isinstance(value, timedelta):
        return {"duration_ns": str(value // timedelta(microseconds=1) * 1000)}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
    return value


def kept_ids(ids: Iterable[Any]) -> tuple[Any, ...]:
    """Return ids as Python has them, of whatever holds them."""
    return tuple(one.as_py() if isinstance(one, pa.Scalar) else one for one in ids)


def texts(name: str, said: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """Return an argument that is a text, or several."""
    if said is None:
        return None
    found = tuple(said) if isinstance(said, Iterable) and not isinstance(said, str) else (said,)
    if not all(isinstance(text, str) for text in found):
        raise QueryError(f"{name}= is a text or a list of texts, not {said!r}")
    return found
