"""Groups, arrays and chunks that are composed when they are read."""
