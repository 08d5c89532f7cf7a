"""A search, as SQL over ``/meta``, to the rows it finds."""
