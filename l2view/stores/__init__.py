"""What a user may pass as a store."""
