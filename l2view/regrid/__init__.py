"""Pixels from one grid to another, NumPy in and NumPy out."""
