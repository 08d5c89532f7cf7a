"""What the granules of one product version share, and how their arrays are packed.

A profile names, for each array, its path, rank, data type, codecs, fill value and dimension
names. Granules of one profile may differ in shape, chunk shape and attributes. One array of
the store, the packed array, holds an array of all of them along its first axis: the chunk
(slot, r, c) of the packed array is the chunk (r, c) of the granule in that slot, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from l2view.granules.inventory import same_json
from l2view.stores.hierarchy import JSON, OWN, join

GRANULES = "granules"
"""The group with a group of packed arrays for each profile."""

RAGGED = "l2view.ragged"
"""The codec by which a packed array says that its chunks must not be read as one grid."""

SHAPELESS = frozenset(
    {
        "bytes",
        "vlen-utf8",
        "vlen-bytes",
        "gzip",
        "zstd",
        "blosc",
        "crc32c",
        "numcodecs.zlib",
        "numcodecs.gzip",
        "numcodecs.zstd",
        "numcodecs.lz4",
        "numcodecs.bz2",
        "numcodecs.lzma",
        "numcodecs.blosc",
        "numcodecs.shuffle",
        "numcodecs.delta",
        "numcodecs.fixedscaleoffset",
        "numcodecs.quantize",
        "numcodecs.bitround",
        "numcodecs.astype",
        "numcodecs.packbits",
        "numcodecs.crc32",
        "numcodecs.crc32c",
        "numcodecs.adler32",
        "numcodecs.fletcher32",
        "numcodecs.jenkins_lookup3",
    }
)
"""Codecs for which a chunk with one more axis of length 1 is the same chunk."""

FLOAT = "l2view:float"
"""The name by which an attribute says that it is a float that JSON lacks."""

DEFAULT_KEYS: JSON = {"name": "default", "configuration": {"separator": "/"}}


@dataclass(frozen=True)
class ArrayTemplate:
    """What a profile says of one array.

    Attributes
    ----------
    path
        Its path below the granule.
    document
        A granule's own Zarr v3 document, without shape, chunk grid and attributes.
    rank
        The number of its dimensions.
    """

    path: str
    document: JSON
    rank: int

    def filled(self, shape: Sequence[int], chunk_shape: Sequence[int], attributes: JSON) -> JSON:
        """Return one granule's Zarr v3 document."""
        grid = {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}}
        return {
            **self.document,
            "shape": list(shape),
            "chunk_grid": grid,
            "chunk_key_encoding": DEFAULT_KEYS,
            "attributes": attributes,
        }

    def packed(self, slots: int, shape: Sequence[int], chunk_shape: Sequence[int]) -> JSON:
        """Return the Zarr v3 document of the packed array while all chunk shapes are the same.

        Parameters
        ----------
        slots
            The number of granules.
        shape
            The longest of their shapes along each axis.
        chunk_shape
            Their chunk shape.
        """
        codecs = with_leading_axis(self.document["codecs"])
        if codecs is None:
            grid = [-(-n // max(c, 1)) for n, c in zip(shape, chunk_shape, strict=True)]
            return self.ragged(slots, grid)
        return self._packed([slots, *shape], [1, *chunk_shape], codecs)

    def ragged(self, slots: int, grid: Sequence[int]) -> JSON:
        """Return the packed array's document where chunk shapes differ: its cells are chunks.

        Parameters
        ----------
        slots
            The number of granules.
        grid
            The largest number of chunks along each axis.
        """
        codecs = [{"name": RAGGED, "configuration": {}}]
        return self._packed([slots, *grid], [1] * (self.rank + 1), codecs)

    def _packed(self, shape: list[int], chunks: list[int], codecs: list[JSON]) -> JSON:
        document = {
            **self.document,
            "shape": shape,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
            "chunk_key_encoding": DEFAULT_KEYS,
            "codecs": codecs,
            "attributes": {},
        }
        names = self.document.get("dimension_names")
        if names is not None:
            document["dimension_names"] = ["slot", *names]
        return document


@dataclass(frozen=True)
class Profile:
    """What the granules of one product version share.

    Attributes
    ----------
    arrays
        Their arrays, by path.
    groups
        The paths of their groups but the granule's own.
    """

    arrays: tuple[ArrayTemplate, ...]
    groups: tuple[str, ...] = ()

    @cached_property
    def name(self) -> str:
        """A hash of all of it: the same for the same product version, in every collection."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def columns(self) -> dict[str, slice]:
        """Which columns of the profile's shapes belong to which array."""
        found, start = {}, 0
        for array in self.arrays:
            found[array.path] = slice(start, start + array.rank)
            start += array.rank
        return found

    @property
    def width(self) -> int:
        """The number of columns of the profile's shapes: the ranks of its arrays, together."""
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
        return any(other.startswith(f"{path}/") for other in self._by_path)

    def array_of_key(self, key: str) -> tuple[ArrayTemplate, str] | None:
        """Return the array that the chunk `key` is of, and the rest of the key."""
        parts = key.split("/")
        for end in range(len(parts) - 1, 0, -1):
            if (found := self._by_path.get("/".join(parts[:end]))) is not None:
                return found, "/".join(parts[end:])
        return None

    def to_json(self) -> JSON:
        """Return the profile as JSON."""
        arrays = {array.path: {"rank": array.rank, **array.document} for array in self.arrays}
        return {"arrays": arrays, "groups": list(self.groups)}

    @classmethod
    def from_json(cls, said: JSON) -> Profile:
        """Return the profile that `to_json` wrote."""
        arrays = []
        for path, document in said["arrays"].items():
            rest = {name: value for name, value in document.items() if name != "rank"}
            arrays.append(ArrayTemplate(path, rest, int(document["rank"])))
        return cls(tuple(arrays), tuple(said["groups"]))


def template(path: str, document: JSON) -> ArrayTemplate:
    """Return what a profile says of the array with the Zarr v3 `document`."""
    kept = {
        name: document[name]
        for name in ("zarr_format", "node_type", "data_type", "codecs", "fill_value")
    }
    if document.get("dimension_names") is not None:
        kept["dimension_names"] = document["dimension_names"]
    if document.get("storage_transformers"):
        raise ValueError("it has storage transformers")
    return ArrayTemplate(path, kept, len(document["shape"]))


def with_leading_axis(codecs: Sequence[JSON]) -> list[JSON] | None:
    """Return codecs for chunks with one more axis in front, of length 1 and with the same bytes.

    None where that can't be told of one of them.
    """
    found: list[JSON] = []
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
        elif name not in SHAPELESS:
            return None
        found.append({"name": name, "configuration": configuration} if configuration else codec)
    return found


def packed_path(profile: str, path: str = "") -> str:
    """Return where the packed arrays of a profile lie."""
    return join(GRANULES, profile, path)


def own_path(profile: str, name: str = "") -> str:
    """Return where l2view keeps what it alone reads of a profile."""
    return join(OWN, profile, name)


def encoded(value: Any) -> Any:
    """Return attributes as JSON can hold them: NaN and infinities as ``{"l2view:float": "NaN"}``.

    Examples
    --------
    >>> encoded({"valid_max": float("inf"), "units": "K"})
    {'valid_max': {'l2view:float': 'inf'}, 'units': 'K'}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return {FLOAT: str(value)}
    if isinstance(value, dict):
        return {name: encoded(one) for name, one in value.items()}
    return [encoded(one) for one in value] if isinstance(value, list) else value


def decoded(value: Any) -> Any:
    """Return the attributes that were `encoded`."""
    if isinstance(value, dict):
        if value.keys() == {FLOAT}:
            return float(value[FLOAT])
        return {name: decoded(one) for name, one in value.items()}
    return [decoded(one) for one in value] if isinstance(value, list) else value


def differences(base: Any, value: Any) -> JSON:
    """Return the attributes of `value` that `base` doesn't have so, and the names that it lacks.

    Examples
    --------
    >>> differences({"units": "K", "title": "a"}, {"units": "K", "orbit": 7})
    {'set': {'orbit': 7}, 'gone': ['title']}
    """
    changed = {k: v for k, v in value.items() if k not in base or not same_json(base[k], v)}
    gone = [name for name in base if name not in value]
    return {**({"set": changed} if changed else {}), **({"gone": gone} if gone else {})}


def applied(base: JSON, difference: JSON) -> JSON:
    """Return the attributes whose `differences` from `base` were taken."""
    gone = set(difference.get("gone", ()))
    kept = {name: value for name, value in base.items() if name not in gone}
    return {**kept, **difference.get("set", {})}
