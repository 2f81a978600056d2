"""Forms that are added to an artifact."""
