"""A search: from a query to rows."""
