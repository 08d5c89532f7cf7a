"""What a granule's own file says of it: one row of ``/meta``.

A harvester takes an opened granule and returns fields; later ones win over earlier ones, and
the caller's own wins over all. This is one of the two places made to be extended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import zarr

type Harvester = Callable[[zarr.Group, str], Mapping[str, Any]]
"""Called with the granule as a Zarr group, its chunks readable, and its URL."""
