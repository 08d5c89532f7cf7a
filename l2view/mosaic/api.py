"""A view as one lazy image: what `View.mosaic` and `l2view.mosaic` are.

What needs the packages of ``l2view[mosaic]`` is imported where it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from l2view.errors import QueryError
from l2view.text import unknown_name
from l2view.virtual.store import ViewStore

if TYPE_CHECKING:
    import xarray as xr
    import zarr
    from numpy.typing import DTypeLike

    from l2view.geolocation.bands import Bands
    from l2view.mosaic.array import Engine
    from l2view.mosaic.composite import Reduce
    from l2view.mosaic.explain import MosaicExplanation
    from l2view.mosaic.plan import MosaicPlan
    from l2view.mosaic.spec import Chunks
    from l2view.regrid.warp import Resampling

EXTRAS = dict.fromkeys(("rasterio", "rasterix", "pykdtree", "dask"), "l2view[mosaic]") | {
    "cubed": "cubed",
}
"""The packages that a mosaic needs, and what to install for them."""


def mosaic(
    view: zarr.Group,
    *,
    crs: Any = None,
    resolution: float | Sequence[float] | None = None,
    bbox: Sequence[float] | str | None = None,
    like: Any = None,
    bands: Bands = None,
    chunks: Chunks = (1024, 1024),
    resampling: Resampling = "nearest",
    nodata: float | None = None,
    dtype: DTypeLike | None = None,
    order_by: str | Sequence[str] | None = None,
    reduce: Reduce = "first",
    group_by: str | None = None,
    epoch: Any = "2000-01-01",
    engine: Engine = "dask",
) -> xr.Dataset:
    """Put a view's granules together on one grid, as one lazy image.

    Nothing is read but where granules lie. A chunk of the image, when it is computed, reads the
    chunks that touch it, of the coarsest overviews that are no coarser than the image.
    Granules may be images in any CRS, located by a transform (of the conventions ``spatial:``,
    ``proj:`` and ``multiscales``, GeoTIFF keys, a CF grid mapping, axes, or the fields ``proj:…``),
    and swaths, located by latitudes and longitudes.

    Parameters
    ----------
    view
        What to put together: `l2view.open` finds it.
    crs
        The image's CRS: ``"EPSG:32631"``, WKT, or anything else that pyproj takes.
    resolution
        The size of a pixel in the CRS's unit, or along x and y. Pixels lie at multiples of it.
    bbox
        What it covers, west, south, east, north in degrees (EPSG:4326), west > east across the
        antimeridian. By default all that the granules cover.
    like
        A `odc.geo.geobox.GeoBox`, DataArray or Dataset whose grid it has, instead of these three.
    bands
        Paths of arrays below a granule, or their names; or a mapping of bands' names to them.
        ``"rgb[0]"`` is the first of an array with more axes than two. All images by default.
    chunks
        The rows and columns of a chunk; None for one chunk.
    resampling
        ``"nearest"``, ``"bilinear"``, ``"cubic"``, ``"cubic_spline"``, ``"lanczos"``,
        ``"average"``, ``"mode"``, ``"max"``, ``"min"``, ``"med"``, ``"q1"``, ``"q3"``, ``"sum"``
        or ``"rms"``, as GDAL has them. Of swaths the nearest cell, if the pixel lies in it, or a
        statistic of the cells whose centres lie in the pixel.
    nodata
        What stands for nothing, also in granules that don't say it. By default NaN, and among
        integers the granules' own fill value.
    dtype
        The image's data type, in which integers are rounded and clipped. By default that of the
        decoded values; of means and medians of integers one of floats.
    order_by
        SQL sort expressions, such as ``"datetime DESC"``, by default the view's order: what
        comes first lies on top.
    reduce
        The composite of several granules in one pixel: ``"first"``, ``"last"``, ``"min"``,
        ``"max"``, ``"mean"``, ``"median"``, ``"count"``; or a function that makes an image of a
        masked array of shape (granules, rows, columns). What the first or last hides isn't read.
    group_by
        An image for each period, such as ``"P1D"``, ``"P1W"``, ``"P1M"`` or ``"PT6H"``, or for
        each ``"solar_day"`` where the granules lie, along ``time``; or for each value of an SQL
        expression, along ``group`` if that is no time.
    epoch
        The time from which several days, weeks, months, … are counted, as of ``"P16D"``.
    engine
        Whose arrays the bands are: ``"dask"`` or ``"cubed"``.

    Returns
    -------
    xarray.Dataset
        A variable for each band, (time, y, x) or (y, x), with an index of its grid.

    Raises
    ------
    QueryError, FieldError
        Where it can't be made; nothing is read before.
    """
    options = dict(locals())
    del options["view"], options["engine"]
    with require_extras():
        from l2view.mosaic.array import ARRAYS
    if engine not in ARRAYS:
        raise QueryError(unknown_name("engine", str(engine), ARRAYS))
    plan = plan_view(view, options)
    with require_extras():
        return plan.to_dataset(ARRAYS[engine])


def explain_mosaic(
    view: zarr.Group,
    *,
    crs: Any = None,
    resolution: float | Sequence[float] | None = None,
    bbox: Sequence[float] | str | None = None,
    like: Any = None,
    bands: Bands = None,
    chunks: Chunks = (1024, 1024),
    resampling: Resampling = "nearest",
    nodata: float | None = None,
    dtype: DTypeLike | None = None,
    order_by: str | Sequence[str] | None = None,
    reduce: Reduce = "first",
    group_by: str | None = None,
    epoch: Any = "2000-01-01",
    progress: bool | Callable[[int, int], None] = False,
) -> MosaicExplanation:
    """Explain what a mosaic would read, without reading it.

    The parameters and errors are those of `mosaic`, and one more.

    Parameters
    ----------
    progress
        True for a bar, or what is called with the chunks that are done and all of them.

    Returns
    -------
    MosaicExplanation
        Per chunk of the mosaic its granules, their overviews, windows and bytes: `str` of it is a
        summary, ``to_dataframe()`` a table, ``plot()`` a picture.
    """
    options = dict(locals())
    del options["view"], options["progress"]
    with require_extras():
        from l2view.mosaic.explain import explain_plan
    return explain_plan(plan_view(view, options), progress)


def plan_view(view: zarr.Group, options: dict[str, Any]) -> MosaicPlan:
    """Plan the mosaic of a view; the options are the fields of a `MosaicSpec`."""
    with require_extras():
        from l2view.mosaic.plan import plan_mosaic
        from l2view.mosaic.spec import MosaicSpec
    store = getattr(view, "store", None)
    if not isinstance(store, ViewStore):
        raise QueryError(
            f"a mosaic is made of a view, and not of {type(view).__name__}: l2view.open(store) "
            "gives one"
        )
    return plan_mosaic(store.tree, MosaicSpec(**options))


@contextmanager
def require_extras() -> Iterator[None]:
    """Say what to install where a package isn't there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        raise QueryError(
            f"a mosaic takes the package {error.name}: pip install '{EXTRAS[error.name]}'"
        ) from error
