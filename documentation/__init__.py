"""The documentation site's own pages, which a build makes from what the product describes: see `hook`."""
