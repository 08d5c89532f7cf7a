"""What the granules of one product version share, and how their arrays are packed.

A profile names, for each array, its path, rank, data type, codecs, fill value and dimension
names. Granules of one profile may differ in shape, chunk shape and attributes. The packed array
holds an array of all of them along its first axis: its chunk (slot, r, c) is the chunk (r, c) of
the granule in that slot, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from l2view.granules.table import regular_grid, same_json
from l2view.stores.hierarchy import JSON, OWN, join

GRANULES = "granules"  # the group with a group of packed arrays for each profile
RAGGED = "l2view.ragged"  # the codec of packed arrays whose chunks must not be read as one grid

SHAPELESS = re.compile(
    "bytes|vlen-utf8|vlen-bytes|gzip|zstd|blosc|crc32c|"
    "numcodecs\\.(zlib|gzip|zstd|lz4|bz2|lzma|blosc|shuffle|delta|fixedscaleoffset|quantize|"
    "bitround|astype|packbits|crc32|crc32c|adler32|fletcher32|jenkins_lookup3)"
)
"""Codecs for which a chunk with one more axis of length 1 is the same chunk."""

FLOAT = "l2view:float"  # the key of an attribute's float that JSON lacks

DEFAULT_KEYS: JSON = {"name": "default", "configuration": {"separator": "/"}}


@dataclass(frozen=True)
class ArrayTemplate:
    """One array of a profile: its path below the granule, and its number of dimensions.

    The document is a granule's own Zarr v3 document, without shape, chunk grid and attributes.
    """

    path: str
    document: JSON
    rank: int

    @classmethod
    def from_document(cls, path: str, document: JSON) -> Self:
        """Return the template of an array; a `ValueError` says that it can't be packed."""
        if document.get("storage_transformers"):
            raise ValueError("it has storage transformers")
        names = ("zarr_format", "node_type", "data_type", "codecs", "fill_value")
        shared = {name: document[name] for name in names}
        if document.get("dimension_names") is not None:
            shared["dimension_names"] = document["dimension_names"]
        return cls(path, shared, len(document["shape"]))

    def granule_document(
        self, shape: Sequence[int], chunk_shape: Sequence[int], attributes: JSON
    ) -> JSON:
        """Return one granule's Zarr v3 document."""
        return {
            **self.document,
            "shape": list(shape),
            "chunk_grid": regular_grid(chunk_shape),
            "chunk_key_encoding": DEFAULT_KEYS,
            "attributes": attributes,
        }

    def packed_document(
        self, slots: int, shape: Sequence[int], grid: Sequence[int], chunk_shape: list[int] | None
    ) -> JSON:
        """Return the Zarr v3 document of the packed array of many granules of an extent.

        Where chunk shapes differ, or a codec can't take another axis, its cells are chunks.
        """
        codecs = None if chunk_shape is None else with_leading_axis(self.document["codecs"])
        if codecs is None or chunk_shape is None:
            shape, chunk_shape = grid, [1] * self.rank
            codecs = [{"name": RAGGED, "configuration": {}}]
        packed = self.granule_document([slots, *shape], [1, *chunk_shape], {})
        names = self.document.get("dimension_names")
        names = {} if names is None else {"dimension_names": ["slot", *names]}
        return {**packed, "codecs": codecs, **names}


@dataclass(frozen=True)
class Profile:
    """What the granules of one product version share: arrays, and paths of groups below them."""

    arrays: tuple[ArrayTemplate, ...]
    groups: tuple[str, ...] = ()

    @cached_property
    def name(self) -> str:
        """A hash of all of it: the same for the same product version, in every collection."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def columns(self) -> dict[str, slice]:
        """Each array's columns in the profile's tables of shapes, by path."""
        columns, start = {}, 0
        for array in self.arrays:
            columns[array.path] = slice(start, start + array.rank)
            start += array.rank
        return columns

    @property
    def width(self) -> int:
        """The number of columns of the profile's tables of shapes."""
        return sum(array.rank for array in self.arrays)

    def array(self, path: str) -> ArrayTemplate | None:
        """Return the array at `path`, None where there is none."""
        return self._by_path.get(path)

    @cached_property
    def _by_path(self) -> dict[str, ArrayTemplate]:
        return {array.path: array for array in self.arrays}

    def children(self, path: str) -> list[str]:
        """Return the names directly below the group at `path`, sorted."""
        prefix = f"{path}/" if path else ""
        inside = (p for p in (*self._by_path, *self.groups) if p.startswith(prefix))
        return sorted({p[len(prefix) :].split("/", 1)[0] for p in inside})

    def is_group(self, path: str) -> bool:
        """Return whether there is a group at `path`."""
        if not path or path in self.groups:
            return True
        return any(array_path.startswith(f"{path}/") for array_path in self._by_path)

    def to_json(self) -> JSON:
        """Return the profile as JSON."""
        arrays = {array.path: {"rank": array.rank, **array.document} for array in self.arrays}
        return {"arrays": arrays, "groups": list(self.groups)}

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        """Return the profile that `to_json` wrote."""
        entries = {path: dict(entry) for path, entry in value["arrays"].items()}
        ranks = {path: int(entry.pop("rank")) for path, entry in entries.items()}
        arrays = [ArrayTemplate(path, entry, ranks[path]) for path, entry in entries.items()]
        return cls(tuple(arrays), tuple(value["groups"]))


def with_leading_axis(codecs: Sequence[JSON]) -> list[JSON] | None:
    """Return codecs for chunks with one more axis in front, of length 1 and with the same bytes.

    None where one of the codecs isn't known to allow that.
    """
    extended: list[JSON] = []
    for codec in codecs:
        name, configuration = codec["name"], dict(codec.get("configuration") or {})
        if name == "transpose":
            configuration["order"] = [0, *(axis + 1 for axis in configuration["order"])]
        elif name == "sharding_indexed":
            inner = with_leading_axis(configuration["codecs"])
            if inner is None:
                return None
            configuration["chunk_shape"] = [1, *configuration["chunk_shape"]]
            configuration["codecs"] = inner
        elif not SHAPELESS.fullmatch(name):
            return None
        extended.append({"name": name, "configuration": configuration} if configuration else codec)
    return extended


def split_chunk_key(key: str) -> tuple[str, str]:
    """Return the path of the array that a chunk's key is of, and the key below it.

    Examples
    --------
    >>> split_chunk_key("data/sst/c/0/1"), split_chunk_key("orbit/c")
    (('data/sst', 'c/0/1'), ('orbit', 'c'))
    """
    path, _, indices = f"{key}/".rpartition("/c/")
    return path, f"c/{indices}".rstrip("/")


def packed_path(profile: str, path: str = "") -> str:
    """Return the path of a profile's packed arrays."""
    return join(GRANULES, profile, path)


def own_path(profile: str, name: str = "") -> str:
    """Return the path of what l2view alone reads of a profile."""
    return join(OWN, profile, name)


def encode_floats(value: Any, encode: Callable[[str], Any] = lambda text: {FLOAT: text}) -> Any:
    """Return attributes as JSON can hold them: NaN and infinities as ``{"l2view:float": "nan"}``.

    Or as `encode` makes them of Python's ``"nan"``, ``"inf"`` and ``"-inf"``.

    Examples
    --------
    >>> encode_floats({"valid_max": float("inf"), "units": "K"})
    {'valid_max': {'l2view:float': 'inf'}, 'units': 'K'}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return encode(str(value))
    if isinstance(value, dict):
        return {name: encode_floats(item, encode) for name, item in value.items()}
    return [encode_floats(item, encode) for item in value] if isinstance(value, list) else value


def decode_floats(value: Any) -> Any:
    """Return the attributes that `encode_floats` encoded."""
    if isinstance(value, dict):
        if value.keys() == {FLOAT}:
            return float(value[FLOAT])
        return {name: decode_floats(item) for name, item in value.items()}
    return [decode_floats(item) for item in value] if isinstance(value, list) else value


def attribute_patch(base: JSON, attributes: JSON) -> JSON:
    """Return the patch from `base` to `attributes`: what to set, and the names to remove.

    Examples
    --------
    >>> attribute_patch({"units": "K", "title": "a"}, {"units": "K", "orbit": 7})
    {'set': {'orbit': 7}, 'gone': ['title']}
    """
    changed = {
        name: value
        for name, value in attributes.items()
        if name not in base or not same_json(base[name], value)
    }
    removed = [name for name in base if name not in attributes]
    return {**({"set": changed} if changed else {}), **({"gone": removed} if removed else {})}


def apply_patch(base: JSON, patch: JSON) -> JSON:
    """Return the attributes that an `attribute_patch` makes of `base`."""
    removed = set(patch.get("gone", ()))
    remaining = {name: value for name, value in base.items() if name not in removed}
    return {**remaining, **patch.get("set", {})}
