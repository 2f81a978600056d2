"""A small network, untrained."""
