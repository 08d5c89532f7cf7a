"""The cells of arrays as rows."""
