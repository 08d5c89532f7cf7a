"""The codec of packed arrays whose granules have different chunk shapes.

Such an array can't be read as one grid: its cells count chunks, and each chunk has the shape and
codecs of its own granule. So the codec refuses, and says what can be done instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, Self

from zarr.abc.codec import ArrayBytesCodec

from l2view.errors import UnsupportedArrayError
from l2view.granules.profile import RAGGED
from l2view.stores.hierarchy import JSON


@dataclass(frozen=True)
class RaggedCodec(ArrayBytesCodec):
    """A codec that neither encodes nor decodes."""

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: JSON) -> Self:
        """Return the codec; it has no configuration."""
        return cls()

    def to_dict(self) -> Any:
        """Return the codec's Zarr v3 metadata."""
        return {"name": RAGGED, "configuration": {}}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> NoReturn:
        """Refuse."""
        raise UnsupportedArrayError(
            "this array packs granules that are chunked in different ways; open the collection "
            "with l2view.open(store), which has each granule as it is"
        )

    async def _decode_single(self, chunk_data: Any, chunk_spec: Any) -> NoReturn:
        self.compute_encoded_size(0, chunk_spec)

    async def _encode_single(self, chunk_data: Any, chunk_spec: Any) -> NoReturn:
        self.compute_encoded_size(0, chunk_spec)
