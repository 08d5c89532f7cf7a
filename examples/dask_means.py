"""Compute over the granules of a view with Dask, each decoded with its own packing.

Needs the collection that ``l2view demo`` makes, and the extra ``dask``. Prints::

    AQUA_SST_20250601T1010 286.48 K
    AQUA_SST_20250602T1510 286.42 K
    AQUA_SST_20250603T2010 287.15 K
"""

import dask

import l2view

view = l2view.open(
    "l2view-demo/collection",
    "product = 'sst'",
    order_by="datetime",
    limit=3,
    variables="sea_surface_temperature",
    authorize=True,
)
tree = view.to_datatree().chunk()
means = {name: node["sea_surface_temperature"].mean() for name, node in tree.children.items()}
(computed,) = dask.compute(means)
for name, mean in computed.items():
    print(f"{name} {float(mean):.2f} K")
