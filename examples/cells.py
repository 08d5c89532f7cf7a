"""Query the cells of matching granules in SQL and in Polars.

Needs the collection that ``l2view demo`` makes. Prints::

    {'granule': 'METOPB_WIND_20250607T2030', 'cells': 19134, 'strongest': 18.8}
    {'granule': 'METOPB_WIND_20250605T0630', 'cells': 15205, 'strongest': 18.0}
    {'granule': 'METOPB_WIND_20250609T0330', 'cells': 20456, 'strongest': 17.5}
    [('S2B_T31TGJ_20250602T1030', 3695.4), ('S2B_T32TGJ_20250608T1030', 2849.9)]
"""

import polars as pl

import l2view

collection = l2view.Collection("l2view-demo/collection", authorize=True)

query = """
    SELECT granule, count(value) AS cells, round(max(value), 1) AS strongest
    FROM cells('wind_speed', where => 'platform = $platform')
    WHERE lat BETWEEN 0 AND 30
    GROUP BY granule ORDER BY strongest DESC LIMIT 3
"""
for row in collection.sql(query, {"platform": "Metop-B"}).to_pylist():
    print(row)

cells = collection.open("product = 'scene'", order_by="cloud_cover", limit=2).cells("2")
bright = (
    pl.scan_pyarrow_dataset(cells)
    .filter((pl.col("dim_0") < 16) & (pl.col("dim_1") < 16))
    .group_by("granule")
    .agg(pl.col("value").mean().round(1))
    .sort("granule")
    .collect()
)
print(bright.rows())
