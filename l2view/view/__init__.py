"""The answer to a search: a Zarr group over a read-only store."""
