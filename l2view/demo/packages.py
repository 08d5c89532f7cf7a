"""What the demo needs beyond l2view itself."""

from __future__ import annotations

from importlib.util import find_spec

from l2view.errors import L2ViewError

PACKAGES = ("h5netcdf", "matplotlib", "rasterio", "scipy", "virtual_tiff", "virtualizarr")
"""What writing the demo's files, referring to them and drawing takes."""


def require_packages() -> None:
    """Raise where a package of the demo is missing, before anything is written.

    Raises
    ------
    L2ViewError
        Naming the packages, and what to install.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise L2ViewError(f"the demo needs {', '.join(missing)}: pip install 'l2view[demo]'")
