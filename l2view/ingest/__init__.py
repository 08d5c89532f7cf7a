"""Files in: granules of many formats, virtualised into one collection."""
