"""Views out of l2view: as collections, references of other tools, and copies."""
