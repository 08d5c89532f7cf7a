"""``l2view demo``: the main job on granules in real formats, from files to values."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
import xarray as xr
from rich.console import Console

from l2view import api
from l2view.cli.output import OutputFormat, write_table
from l2view.collection import Collection
from l2view.demo.check import check_granule
from l2view.demo.files import GranuleFile, require_packages, write_granules
from l2view.demo.picture import draw
from l2view.errors import L2ViewError
from l2view.progress import show_progress

MARK = ".l2view-demo"  # the file by which the demo knows a folder as its own

CLOUDS = "cloud_cover IS NULL OR cloud_cover < $most"
BBOX = (-20, 30, 30, 60)
DATETIME = "2025-06-01/2025-06-08"


def demo_command(
    folder: Annotated[
        Path, typer.Argument(help="A folder for the granules, the repository and the picture.")
    ] = Path("l2view-demo"),
) -> None:
    """Write granules in real formats, search them, read them back and check every value.

    No network is used. The folder is made anew when the demo runs again.
    """
    require_packages()
    started = time.perf_counter()
    console = Console(highlight=False)
    files = prepare_folder(folder)

    _step(console, 1, "Granules, as their providers write them")
    granules: list[GranuleFile] = []
    with show_progress(True, "granules") as report:
        for granule in write_granules(files):
            granules.append(granule)
            report(len(granules), 22)
    size = sum(granule.path.stat().st_size for granule in granules)
    counts = Counter(granule.path.suffix for granule in granules)
    kinds = {".nc": "netCDF-3 swaths", ".h5": "HDF5 swaths", ".tif": "GeoTIFF scenes (two zones)"}
    for suffix, kind in kinds.items():
        console.print(f"    {counts[suffix]} {kind}")
    console.print(f"    {size / 1e6:.1f} MB in {files}")

    title = "Virtualised into one Icechunk repository, with their metadata, in one commit"
    _step(console, 2, title)
    repository = folder / "collection"
    fields = {granule.path.stem: granule.fields for granule in granules}
    api.ingest(
        [granule.path for granule in granules],
        repository,
        harvest=lambda group, url: fields[url.rpartition("/")[2].rpartition(".")[0]],
        storage="groups",
        strict=True,
    )
    container = f"{files.resolve().as_uri()}/"
    collection = Collection(str(repository), authorize=[container])
    size = sum(path.stat().st_size for path in repository.rglob("*") if path.is_file())
    console.print(f"    snapshot {collection.snapshot}, {size / 1e3:.0f} kB: references, no copies")

    _step(console, 3, "Searched")
    console.print(
        f'    l2view.open({str(repository)!r}, "{CLOUDS}", params={{"most": 60}},\n'
        f"                bbox={BBOX}, datetime={DATETIME!r},\n"
        f'                authorize=["{container}"])',
        markup=False,
        soft_wrap=True,
    )
    view = collection.open(CLOUDS, params={"most": 60}, bbox=BBOX, datetime=DATETIME)
    shown = view.table.select(["id", "product", "start_datetime", "cloud_cover"])
    write_table(shown, OutputFormat.table)
    console.print(f"    {len(shown)} granules found")

    _step(console, 4, "Opened in xarray")
    dataset = xr.open_zarr(view.store)
    console.print(f"    xr.open_zarr(view.store): {dict(dataset.sizes)}, {len(dataset)} fields")
    tree = view.to_datatree()
    for name in view.names:
        node = tree[name]
        if "sea_surface_temperature" in node:
            temperature = node.dataset["sea_surface_temperature"]
            mean, scale = float(temperature.mean()), temperature.encoding["scale_factor"]
            console.print(f"    {name}: scale_factor {scale}, mean {mean:.2f} K")

    _step(console, 5, "Checked against the files, read by other libraries")
    paths = {granule.path.stem: granule.path for granule in granules}
    everything = collection.open()
    checks = {n: check_granule(everything.get_group(n), paths[n]) for n in everything.names}
    wrong = [f"{name}/{array}" for name, check in checks.items() for array in check.different]
    for reader in dict.fromkeys(check.reader for check in checks.values()):
        own = [check for check in checks.values() if check.reader == reader]
        arrays, values = sum(check.arrays for check in own), sum(check.values for check in own)
        outcome = "compared" if wrong else "the same"
        console.print(
            f"    {reader:<9} {len(own)} granules, {arrays} arrays, {values:,} values: {outcome}"
        )
    picture = folder / "demo.png"
    draw(everything.table, view, picture)

    _step(console, 6, "Done")
    console.print(f"    picture: {picture}", soft_wrap=True)
    console.print(f"    {time.perf_counter() - started:.1f} s")
    if wrong:
        raise L2ViewError(f"these arrays differ from their files: {', '.join(wrong)}")


def prepare_folder(folder: Path) -> Path:
    """Make the demo's folder anew, unless something else is in it."""
    if folder.exists() and not folder.is_dir():
        raise L2ViewError(f"{folder} is a file; name a folder for the demo")
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise L2ViewError(f"{folder} is not empty, and not the demo's; name another folder")
    for name in ("granules", "collection"):
        shutil.rmtree(folder / name, ignore_errors=True)
    files = folder / "granules"
    files.mkdir(parents=True)
    (folder / MARK).touch()
    return files


def _step(console: Console, number: int, title: str) -> None:
    console.print(f"[bold]{number}  {title}[/]")
