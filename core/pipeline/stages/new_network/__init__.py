"""Creation of a small, untrained network."""
