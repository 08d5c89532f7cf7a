"""``l2view mosaic``: granules that match, as one image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from l2view.api import open as open_view
from l2view.cli import options
from l2view.errors import QueryError
from l2view.geolocation.bands import band_name
from l2view.mosaic.api import explain_mosaic, require_extras, tree_of

OUT = "The image: OUT.tif, a Cloud-Optimized GeoTIFF, or OUT.zarr. Not with --explain."


def mosaic(
    store: options.Store,
    output: Annotated[str | None, typer.Argument(metavar="OUT", help=OUT)] = None,
    crs: Annotated[str | None, typer.Option(help="The image's CRS, such as EPSG:32631.")] = None,
    resolution: Annotated[
        str | None, typer.Option(metavar="N[,N]", help="The size of a pixel in the CRS's unit.")
    ] = None,
    like: Annotated[
        str | None, typer.Option(metavar="FILE", help="An image whose grid it has, instead.")
    ] = None,
    band: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH",
            help="An array, by its path or name, and what it is to be called. Repeatable.",
        ),
    ] = None,
    bbox: options.BBox = None,
    where: options.Where = None,
    param: options.Params = None,
    intersects: options.Intersects = None,
    datetime: options.Datetime = None,
    ids: options.Ids = None,
    order_by: Annotated[
        str | None,
        typer.Option(help="What comes first and lies on top, such as 'cloud_cover'."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The most granules, the first of --order-by.")
    ] = None,
    resampling: Annotated[
        str, typer.Option(help="nearest, bilinear, cubic, average, … as GDAL has them.")
    ] = "nearest",
    reduce: Annotated[
        str, typer.Option(help="first, last, min, max, mean, median or count.")
    ] = "first",
    group_by: Annotated[
        str | None, typer.Option(help="An image for each P1D, P1M, …, or SQL expression.")
    ] = None,
    nodata: Annotated[float | None, typer.Option(help="What stands for nothing.")] = None,
    dtype: Annotated[str | None, typer.Option(help="The data type, such as float32.")] = None,
    chunks: Annotated[int, typer.Option(min=16, help="The side of a chunk in pixels.")] = 1024,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what would be read, and read nothing.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    branch: options.Branch = None,
    tag: options.Tag = None,
    snapshot: options.Snapshot = None,
    group: options.Group = "meta",
    location: options.Location = None,
    geometry_field: options.GeometryField = None,
    time_field: options.TimeField = None,
    authorize: options.Authorized = None,
) -> None:
    """Put the granules that match together as one image.

    The box crops the image, but for that of --like, and leaves out granules that don't touch it.
    """
    if output is None and not explain:
        raise typer.BadParameter("name OUT.tif or OUT.zarr, or pass --explain", param_hint="OUT")
    if output is not None and explain:
        raise typer.BadParameter("--explain writes nothing: leave OUT out", param_hint="OUT")
    if output is not None and _holds(store, output):
        raise typer.BadParameter(f"{output} is where the granules come from", param_hint="OUT")
    corners = options.bbox(bbox)
    view = open_view(
        store,
        where,
        params=options.params(param) or None,
        bbox=corners,
        intersects=intersects,
        datetime=datetime,
        ids=ids or None,
        order_by=order_by,
        limit=limit,
        branch=branch,
        tag=tag,
        snapshot=snapshot,
        group=group,
        location=location,
        geometry_field=geometry_field,
        time_field=time_field,
        authorize=authorize or None,
    )
    asked: dict[str, Any] = {
        "crs": crs,
        "resolution": _numbers(resolution),
        "bbox": None if like else corners,
        "like": None if like is None else _grid(like),
        "bands": _bands(band),
        "chunks": chunks,
        "resampling": resampling,
        "nodata": nodata,
        "dtype": dtype,
        "reduce": reduce,
        "group_by": group_by,
    }
    if explain:
        typer.echo(explain_mosaic(view, progress=True, **asked))
        return
    with require_extras():
        from l2view.mosaic import plan, spec, write
    planned = plan.plan_mosaic(tree_of(view), spec.MosaicSpec(**asked))
    write.write_mosaic(planned, cast("str", output), overwrite=overwrite, progress=True)
    typer.echo(f"wrote {output}", err=True)


def _holds(store: str, output: str) -> bool:
    """Return whether an output is a store, lies in it, or has it in it."""
    if "://" in store:
        return False
    own, other = Path(store).resolve(), Path(output).resolve()
    return own == other or own in other.parents or other in own.parents


def _numbers(said: str | None) -> Any:
    """Return the numbers of ``--resolution``."""
    if said is None:
        return None
    try:
        found = [float(part) for part in said.replace(",", " ").split()]
    except ValueError as error:
        raise typer.BadParameter(f"{said} is no number", param_hint="--resolution") from error
    return found[0] if len(found) == 1 else found


def _bands(said: list[str] | None) -> Any:
    """Return the bands of ``--band`` by their names, None for all."""
    if not said:
        return None
    found: dict[str, str] = {}
    for one in said:
        name, equals, path = one.rpartition("=")
        if equals and not name:
            raise typer.BadParameter(f"{one} is not [NAME=]PATH", param_hint="--band")
        name = name or band_name(path)
        if name in found:
            raise typer.BadParameter(f"two bands are called {name}", param_hint="--band")
        found[name] = path
    return found


def _grid(path: str) -> Any:
    """Return the grid of a file.

    Raises
    ------
    QueryError
        Where it is no image.
    """
    with require_extras():
        import rasterio
        from odc.geo.geobox import GeoBox
    try:
        with rasterio.open(path) as file:
            return GeoBox.from_rio(file)
    except rasterio.errors.RasterioError as error:
        raise QueryError(f"--like {path} is no image that GDAL reads: {error}") from error
