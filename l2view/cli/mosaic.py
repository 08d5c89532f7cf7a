"""``l2view mosaic``: granules that match, as one image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from l2view.cli.options import SearchOptions, StoreOptions, parse_numbers, with_options
from l2view.errors import QueryError
from l2view.geolocation.bands import band_name
from l2view.mosaic.api import explain_mosaic, plan_view, require_extras

OUT = "The image: OUT.tif, a Cloud-Optimized GeoTIFF, or OUT.zarr. Not with --explain."


@with_options
def mosaic_command(
    source: StoreOptions,
    search: SearchOptions,
    output: Annotated[str | None, typer.Argument(metavar="OUT", help=OUT)] = None,
    crs: Annotated[str | None, typer.Option(help="The image's CRS, such as EPSG:32631.")] = None,
    resolution: Annotated[
        str | None, typer.Option(metavar="N[,N]", help="The size of a pixel in the CRS's unit.")
    ] = None,
    like: Annotated[
        str | None, typer.Option(metavar="FILE", help="An image with the grid to use, instead.")
    ] = None,
    band: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH",
            help="An array by its path or name, and the name of the band. Repeatable.",
        ),
    ] = None,
    resampling: Annotated[
        str, typer.Option(help="nearest, bilinear, cubic, average, … as GDAL has them.")
    ] = "nearest",
    reduce: Annotated[
        str, typer.Option(help="first, last, min, max, mean, median or count.")
    ] = "first",
    group_by: Annotated[
        str | None,
        typer.Option(help="An image for each P1D, P1M, …, solar_day, or SQL expression."),
    ] = None,
    epoch: Annotated[
        str, typer.Option(help="From when several days, weeks, … are counted, as of P16D.")
    ] = "2000-01-01",
    nodata: Annotated[float | None, typer.Option(help="The value of empty pixels.")] = None,
    dtype: Annotated[str | None, typer.Option(help="The data type, such as float32.")] = None,
    chunks: Annotated[int, typer.Option(min=16, help="The side of a chunk in pixels.")] = 1024,
    explain: Annotated[
        bool, typer.Option("--explain", help="Report what would be read. Read no data.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing image.")
    ] = False,
) -> None:
    """Resample matching granules to one image, with the first of --order-by on top.

    --bbox leaves out granules outside it, and crops the image, but not the grid of --like.
    """
    if output is None and not explain:
        raise typer.BadParameter("name OUT.tif or OUT.zarr, or pass --explain", param_hint="OUT")
    if output is not None and explain:
        raise typer.BadParameter("--explain writes nothing: leave OUT out", param_hint="OUT")
    if output is not None and _overlaps(source.store, output):
        raise typer.BadParameter(f"{output} is where the granules come from", param_hint="OUT")
    query = search.query()
    sizes = parse_numbers(resolution, "--resolution", "N or N,N")
    view = source.open().open(query)
    spec: dict[str, Any] = {
        "crs": crs,
        "resolution": sizes[0] if sizes and len(sizes) == 1 else sizes,
        "bbox": None if like else query.bbox,
        "like": None if like is None else _read_grid(like),
        "bands": _parse_bands(band),
        "chunks": chunks,
        "resampling": resampling,
        "nodata": nodata,
        "dtype": dtype,
        "reduce": reduce,
        "group_by": group_by,
        "epoch": epoch,
    }
    if explain:
        typer.echo(explain_mosaic(view, progress=True, **spec))
        return
    with require_extras():
        from l2view.mosaic.write import write_mosaic
    write_mosaic(plan_view(view, spec), cast("str", output), overwrite=overwrite, progress=True)
    typer.echo(f"wrote {output}", err=True)


def _overlaps(store: str, output: str) -> bool:
    """Return whether an output is a store, lies in it, or contains it."""
    if "://" in store:
        return False
    origin, target = Path(store).resolve(), Path(output).resolve()
    return origin == target or origin in target.parents or target in origin.parents


def _parse_bands(texts: list[str] | None) -> dict[str, str] | None:
    """Return the paths of ``--band`` by the bands' names, None for all."""
    if not texts:
        return None
    bands: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.rpartition("=")
        if equals and not name:
            raise typer.BadParameter(f"{text} is not [NAME=]PATH", param_hint="--band")
        name = name or band_name(path)
        if name in bands:
            raise typer.BadParameter(f"two bands are called {name}", param_hint="--band")
        bands[name] = path
    return bands


def _read_grid(path: str) -> Any:
    """Return the grid of an image; a `QueryError` says that it is none."""
    with require_extras():
        import rasterio
        from odc.geo.geobox import GeoBox
    try:
        with rasterio.open(path) as file:
            return GeoBox.from_rio(file)
    except rasterio.errors.RasterioError as error:
        raise QueryError(f"--like {path} is no image that GDAL reads: {error}") from error
