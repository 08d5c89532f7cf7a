"""A view as one lazy array on one grid."""
