"""One image of four tiles in two UTM zones, each with levels of 10 m and 20 m.

Writes the tiles as a plain Zarr store with the conventions spatial and proj, and makes a mosaic of
them. Prints::

    mosaic of 696 × 685 pixels in EPSG:32618: red
    chunks    4 of 512 × 512, 0 of them empty
    granules  4 of 4, 1 to 4 in a chunk
    reads     at most 16 chunks, 4,194,304 bytes
      red: level 0, r10m/red, of 4 granules
    at 20 m: r20m/red
    farthest from the truth: 0.54
"""

import numpy as np
import zarr
from pyproj import Transformer

import l2view

BORDER = (-78.0, 54.0)
"""Where the zones 17 and 18 meet: longitude, latitude."""


def truth(lon, lat):
    """What the tiles show: a field without a seam."""
    return 1000 + 2_000 * (lon - BORDER[0]) + 40 * np.sin(300 * (lat - BORDER[1]))


def write_level(group, name, crs, transform, size):
    a, _, c, _, e, f = transform
    columns, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform
    values = truth(*to_degrees(a * columns + c, e * rows + f)).astype("float32")
    level = group.create_group(name, attributes={"spatial:transform": transform})
    red = level.create_array(
        "red",
        shape=values.shape,
        chunks=(256, 256),
        dtype="float32",
        fill_value=np.nan,
        compressors=None,
        dimension_names=("y", "x"),
    )
    red[...] = values


root = zarr.open_group("four-tiles.zarr", mode="w")
names = []
for zone, side in ((17, -1), (18, 0)):
    crs = f"EPSG:326{zone}"
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*BORDER)
    for row in range(2):
        west, north = round(x, -2) + side * 5120 + 800 * (side < 0), round(y, -2) + row * 5120
        name = f"tile_{zone}_{row}"
        group = root.create_group(name, attributes={"proj:code": crs})
        write_level(group, "r10m", crs, [10, 0, west, 0, -10, north], 512)
        write_level(group, "r20m", crs, [20, 0, west, 0, -20, north], 256)
        layout = [{"asset": "r10m"}, {"asset": "r20m", "derived_from": "r10m"}]
        group.attrs["multiscales"] = {"layout": layout}
        names.append(name)
meta = root.create_group("meta")
for field in ("id", "group_path"):
    meta.create_array(field, data=np.array(names, np.dtypes.StringDType()))

view = l2view.open("four-tiles.zarr")
grid = {"crs": "EPSG:32618", "bbox": (-78.05, 53.97, -77.95, 54.03), "bands": "red"}
print(l2view.explain_mosaic(view, **grid, resolution=10, chunks=512))
coarse = l2view.explain_mosaic(view, **grid, resolution=20)
print("at 20 m:", *set(coarse.table["array"].to_pylist()))

image = l2view.mosaic(view, **grid, resolution=10, resampling="bilinear", chunks=512)
x, y = np.meshgrid(image.x, image.y)
lon, lat = Transformer.from_crs("EPSG:32618", "EPSG:4326", always_xy=True).transform(x, y)
off = np.abs(image.red.to_numpy() - truth(lon, lat))
print("farthest from the truth:", f"{off.max():.2f}")
