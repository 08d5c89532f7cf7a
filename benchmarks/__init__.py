"""Ratios against doing the same without l2view: ``make bench``."""
