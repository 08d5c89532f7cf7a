"""SQL over a store: the session and its table functions."""
