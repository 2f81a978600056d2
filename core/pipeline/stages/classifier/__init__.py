"""A whole job on an image classifier."""
