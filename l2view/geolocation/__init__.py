"""Where the cells of a granule's arrays lie on the globe."""
