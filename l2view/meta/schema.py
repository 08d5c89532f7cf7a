"""The fields of ``/meta`` and their Arrow types."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from l2view.arrays.arrow import arrow_type as column_type
from l2view.arrays.cf import MISSING, Packing, require_calendar
from l2view.arrays.dtypes import native_dtype
from l2view.errors import FieldError, L2ViewError, NotACollectionError, UnsupportedArrayError
from l2view.stores.hierarchy import JSON, Hierarchy, describe_root, join
from l2view.stores.open import unreadable_store
from l2view.text import join_names, unknown_name

ROW = "idx"  # the granule's row number, in every query without being stored
GEOMETRIES = ("bbox", "geometry")  # fields that are taken as geometries by their names

CRS = {"crs": "EPSG:4326", "crs_type": "authority_code"}
"""GeoArrow's description of longitude and latitude on WGS 84."""


@dataclass(frozen=True)
class Field:
    """One column: a 1-D array of ``/meta``."""

    name: str
    path: str  # in the store
    document: JSON
    type: pa.DataType  # of its values
    nulls: tuple[Any, ...] = ()  # the stored values that stand for NULL beside NaN and NaT
    geometry: Literal["WKB", "WKT"] | None = None  # how it holds geometries, None where it doesn't
    # How its numbers are packed by the CF conventions; `type` is that of what they mean.
    packing: Packing | None = None

    @property
    def length(self) -> int:
        """The number of rows."""
        return int(self.document["shape"][0])

    @property
    def chunk_length(self) -> int:
        """The number of rows in a chunk, at least 1."""
        return max(1, int(self.document["chunk_grid"]["configuration"]["chunk_shape"][0]))

    def rows_in_chunk(self, number: int) -> int:
        """Count the rows of a chunk that lie inside the field."""
        return min(self.length - number * self.chunk_length, self.chunk_length)

    @property
    def attributes(self) -> JSON:
        """The array's own attributes."""
        return dict(self.document.get("attributes") or {})

    @cached_property
    def fingerprint(self) -> str:
        """What tells how its chunks are read, and from where; not how many there are."""
        definition = {name: value for name, value in self.document.items() if name != "shape"}
        text = json.dumps([self.path, self.geometry, definition], sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def chunk_key(self, index: int) -> str:
        """Return the store's key of the chunk number `index`."""
        encoding = self.document["chunk_key_encoding"]
        separator = encoding.get("configuration", {}).get("separator", "/")
        default = encoding["name"] == "default"
        return join(self.path, f"c{separator}{index}" if default else str(index))

    def arrow(self) -> pa.Field:
        """Return the field in an Arrow schema, where geometries have GeoArrow's extension name."""
        if self.geometry is None:
            return pa.field(self.name, self.type)
        extension = {
            "ARROW:extension:name": f"geoarrow.{self.geometry.lower()}",
            "ARROW:extension:metadata": json.dumps(CRS),
        }
        return pa.field(self.name, self.type, metadata=extension)


def type_name(data_type: str | JSON) -> str:
    """Return the name of a Zarr v3 data type."""
    return data_type if isinstance(data_type, str) else str(data_type["name"])


def raw_bits(data_type: str | JSON) -> int | None:
    """Return the number of bits of a raw data type (``r16``), None for any other."""
    name = type_name(data_type)
    return int(name[1:]) if name[:1] == "r" and name[1:].isdigit() else None


def arrow_type(data_type: str | JSON) -> pa.DataType:
    """Return the Arrow type for a Zarr v3 data type. A `ValueError` says why there is none."""
    if raw_bits(data_type) is not None:
        return pa.binary()
    try:
        dtype = native_dtype(data_type)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the data type {type_name(data_type)} has no Arrow type here") from error
    match dtype.kind:
        case "c":
            raise ValueError("SQL has no complex numbers")
        case "S":
            return pa.string()
        case "O" | "V" if dtype.names is None:  # objects are bytes
            return pa.binary()
    kind = column_type(dtype)
    if pa.types.is_nested(kind) or (dtype.kind in "mM" and pa.types.is_int64(kind)):
        unit = f" in {np.datetime_data(dtype)[0]}" if dtype.kind in "mM" else ""
        raise ValueError(f"the data type {type_name(data_type)}{unit} has no Arrow type here")
    return kind


async def fields_of(
    hierarchy: Hierarchy, group: str, label: str, geometry: str | None = None
) -> tuple[tuple[Field, ...], dict[str, str]]:
    """Read the fields of a collection: see `read_fields`; `label` is what a person calls the store.

    A `StoreError` is raised where it can't be read; `NotACollectionError` where it is no
    collection. A `FieldError` is raised where fields differ in length, or `geometry` can't be one.
    """
    try:
        document, _ = await asyncio.gather(hierarchy.read(group), hierarchy.consolidated_metadata())
        if document is not None and document["node_type"] == "group":
            fields, skipped = await read_fields(hierarchy, group, geometry)
            if fields:
                return fields, skipped
    except L2ViewError:
        raise
    except Exception as error:  # every store has errors of its own
        raise unreadable_store(label, error) from error
    raise NotACollectionError(
        f"{label} is not a collection: a collection has a group "
        f'"{group}" of 1-D arrays of one length, one for each field; '
        f"{await describe_root(hierarchy)}"
    )


async def read_fields(
    hierarchy: Hierarchy, group: str, geometry: str | None = None
) -> tuple[tuple[Field, ...], dict[str, str]]:
    """Read the fields of the group at `group`, sorted by name, and why other arrays can't be one.

    `geometry` is a field to take as a geometry beside those named in `GEOMETRIES`.

    A `FieldError` is raised where fields differ in length, or `geometry` can't be one.
    """
    names = await hierarchy.children(group)
    paths = [join(group, name) for name in names]
    # Not from consolidated metadata, which keeps the shape that a field had when it was
    # consolidated.
    documents = await asyncio.gather(
        *(hierarchy.read(path) for path in paths), return_exceptions=True
    )
    fields: list[Field] = []
    skipped: dict[str, str] = {}
    for name, path, document in zip(names, paths, documents, strict=True):
        if isinstance(document, UnsupportedArrayError):
            skipped[name] = str(document)
        elif isinstance(document, BaseException):
            raise document
        elif document is not None and document["node_type"] == "array":
            try:
                fields.append(_field(name, hierarchy.key(path), document, geometry))
            except ValueError as error:
                skipped[name] = str(error)
    lengths = sorted({field.length for field in fields})
    if len(lengths) > 1:
        same = {n: join_names(f.name for f in fields if f.length == n) for n in lengths}
        rows = "; ".join(f"{length:,} rows in {names}" for length, names in same.items())
        raise FieldError(f"the fields of meta differ in length: {rows}")
    return tuple(fields), skipped


def _field(name: str, path: str, document: JSON, geometry: str | None) -> Field:
    if name == ROW:
        raise ValueError(f'"{ROW}" is the row number, and a stored field can\'t take its name')
    if len(document["shape"]) != 1:
        raise ValueError(f"it has {len(document['shape'])} dimensions, a field has one")
    if document["chunk_grid"]["name"] != "regular":
        raise ValueError(f"its chunk grid is {document['chunk_grid']['name']}, not regular")
    attributes = document.get("attributes") or {}
    stored = arrow_type(document["data_type"])
    packing = _packing(document["data_type"], stored, attributes)
    kind = stored if packing is None else _column_type(stored, packing)
    encoding: Literal["WKB", "WKT"] | None = None
    if name in GEOMETRIES or name == geometry:
        if pa.types.is_binary(kind) or pa.types.is_string(kind):
            encoding = "WKB" if pa.types.is_binary(kind) else "WKT"
        elif name == geometry:
            raise FieldError(f'the field "{name}" is {kind}; a geometry is WKB or WKT')
    nulls = _null_values(attributes, stored) if packing is None else packing.missing_stored
    return Field(name, path, document, kind, nulls, encoding, packing)


def _packing(data_type: str | JSON, kind: pa.DataType, attributes: JSON) -> Packing | None:
    """Return how numbers or texts are packed, None of anything else."""
    if pa.types.is_string(kind):
        return Packing.of(attributes, np.dtypes.StringDType())
    if pa.types.is_binary(kind) or pa.types.is_temporal(kind):
        return None
    return Packing.of(attributes, native_dtype(data_type))


def _column_type(kind: pa.DataType, packing: Packing) -> pa.DataType:
    """Return the type of what a field's values mean; a `ValueError` says that there is none."""
    attributes = packing.attributes
    if packing.is_time:
        unit: Any = "ns" if attributes["units"].casefold().startswith(("nano", "ns")) else "us"
        if " since " not in attributes["units"]:
            return pa.duration(unit)
        require_calendar(attributes)
        sample = packing.decode(np.zeros(1, packing.dtype), unit)
        return pa.timestamp(np.datetime_data(sample.dtype)[0])
    if packing.is_scaled:
        return pa.float64() if packing.decoded_dtype.kind in "iuf" else kind
    if attributes.get("dtype") == "bool" and kind == pa.int8():  # as xarray stores booleans
        return pa.bool_()
    return kind if packing.read_as == packing.dtype else pa.from_numpy_dtype(packing.read_as)


def _null_values(attributes: JSON, kind: pa.DataType) -> tuple[Any, ...]:
    """Return what stands for NULL among bytes, in base64, and times, as integers.

    What can't be a value of the field is left out.
    """
    nulls: list[Any] = []
    for name in MISSING:
        value = attributes.get(name)
        for item in value if isinstance(value, list) else [value]:
            if pa.types.is_binary(kind) and isinstance(item, str):
                with contextlib.suppress(ValueError):
                    nulls.append(base64.standard_b64decode(item))
            elif pa.types.is_temporal(kind) and isinstance(item, int | float) and item == item // 1:
                nulls.append(int(item))
    return tuple(nulls)


def find_field(
    schema: pa.Schema, name: str | None, usual: Sequence[str], purpose: str, option: str
) -> str:
    """Return a field that is named, or the first of the usual ones.

    A `FieldError` is raised where there is none, and says which `option` names one for a `purpose`.
    """
    for candidate in usual if name is None else (name,):
        if candidate in schema.names:
            return candidate
    if name is not None:
        raise FieldError(unknown_name("field", name, schema.names))
    names = f"{', '.join(usual[:-1])} or {usual[-1]}"
    raise FieldError(
        f"a search by {purpose} looks at the field {names}, and there is none of them; name "
        f"another with {option}=. fields: {join_names(schema.names)}"
    )


def table_schema(fields: tuple[Field, ...]) -> pa.Schema:
    """Return the table's schema: the row number, then the fields."""
    return pa.schema([pa.field(ROW, pa.int64(), nullable=False), *(f.arrow() for f in fields)])
