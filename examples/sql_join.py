"""Join the granules of a collection with a table of one's own.

Needs the collection that ``l2view demo`` makes. Prints::

    scene 2 cloudless scenes, 100 m
    sst   8 swaths, 1000 m
    wind  8 swaths, 12500 m
"""

import pyarrow as pa

import l2view

products = pa.table({"product": ["wind", "sst", "scene"], "metres": [12_500, 1_000, 100]})
query = """
    SELECT product, metres, count(*) AS n
    FROM meta JOIN products USING (product)
    WHERE cloud_cover IS NULL OR cloud_cover < 10
    GROUP BY product, metres
    ORDER BY product
"""
frame = l2view.sql("l2view-demo/collection", query, tables={"products": products})
for row in frame.to_pylist():
    kind = "cloudless scenes" if row["product"] == "scene" else "swaths"
    print(f"{row['product']:<5} {row['n']} {kind}, {row['metres']} m")
