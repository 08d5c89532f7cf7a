"""Indexes over the fields: what reads them and what writes them."""
