"""Query the fields of a collection with DuckDB and Polars: both scan the same dataset.

Needs the collection that ``l2view demo`` makes. Prints::

    DuckDB: [('scene', 6), ('sst', 8), ('wind', 8)]
    Polars: ['METOPB_WIND_20250610T1030', 'AQUA_SST_20250609T2110', 'METOPB_WIND_20250609T0330']
"""

import duckdb
import polars as pl

import l2view

meta = l2view.Collection("l2view-demo/collection").meta

counts = duckdb.sql("SELECT product, count(*) FROM meta GROUP BY product ORDER BY product")
print("DuckDB:", counts.fetchall())

latest = (
    pl.scan_pyarrow_dataset(meta)
    .filter(pl.col("cloud_cover").is_null())
    .select("id", "datetime")
    .sort("datetime", descending=True)
    .limit(3)
    .collect()
)
print("Polars:", latest["id"].to_list())
