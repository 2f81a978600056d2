"""Another form of an artifact's weights."""
