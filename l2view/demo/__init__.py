"""Granules in real formats, made on the spot, for the command ``l2view demo``."""
