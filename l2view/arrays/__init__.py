"""Bytes to values: what stored chunks mean."""
