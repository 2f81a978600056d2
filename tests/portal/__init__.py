"""The portal, in a real browser and as plain requests."""
