"""The fields of ``/meta`` as one Arrow table."""
