"""Footprints of products: they hold all cells, and little else."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import shapely

from l2view.geolocation.cell_outlines import wrap_longitudes
from l2view.geolocation.footprint import _outline
from l2view.geolocation.granule import LocatedGranule
from l2view.geolocation.simplification import LONG, ORBIT, SCENE, simplify_outward, sphere_area
from l2view.ingest.harvest.descriptions import descriptions
from l2view.ingest.options import ParseOptions
from l2view.ingest.parse import _parse_file

pytestmark = pytest.mark.filterwarnings("ignore")

WITHOUT = {
    *("ATL03_indexbegin_start_end_FVs.h5", "SDS_fle_shuf_2def.h5", "cmprss_big_2.h5"),
    *("tiepoints_slstr_n.nc", "hang_min.npy", "README.md"),
}
"""Files that say no place."""

SAMPLES = 200
"""The most rows and columns of an image that are looked at."""


def cells_of(granule: LocatedGranule) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return latitudes and longitudes of each pair, and some of each image with a transform."""
    cells = []
    for pair in granule.pairs():
        lat, lon = granule.cells(pair)
        if len(pair.dimensions) == 2 and lat.ndim == 1:
            lon, lat = np.meshgrid(lon, lat)
        cells.append((lat.ravel(), lon.ravel()))
    for image in granule.images():
        if image.transform is not None:
            part = tuple(slice(0, None, -(-n // SAMPLES)) for n in image.shape)
            positions = granule.positions(image.path, (part[0], part[1]))
            assert positions is not None
            cells.append((positions[0].ravel(), positions[1].ravel()))
    return cells


def test_footprints_of_products(shared_data: Path) -> None:
    """0 valid cells outside, 1 % more area at most, 64 vertices of a scene and 128 of an orbit."""
    held = 0
    for path in sorted((shared_data / "real").iterdir()):
        if path.name in WITHOUT:
            continue
        file = _parse_file("", path.as_uri(), ParseOptions(), {}, ExitStack())
        granule = LocatedGranule(file.group)
        full, notes = _outline(granule, list(descriptions(file.group)))
        assert full is not None, path.name
        assert notes == []
        simple = simplify_outward(full)
        most = ORBIT if simple.length > LONG else SCENE
        assert shapely.get_num_coordinates(simple) <= most, path.name
        assert sphere_area(simple) <= 1.01 * sphere_area(full), path.name
        assert full.difference(simple).area < 1e-9, path.name
        for lat, lon in cells_of(granule):
            valid = (np.abs(lat) <= 90) & (np.abs(lon) <= 360) & ~((lat == 0) & (lon == 0))
            inside = shapely.intersects_xy(simple, wrap_longitudes(lon[valid]), lat[valid])
            assert inside.all(), path.name
            held += inside.sum()
    assert held > 10**6
