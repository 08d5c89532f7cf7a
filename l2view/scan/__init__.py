"""Arrow datasets that read themselves."""
