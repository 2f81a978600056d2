"""Rules of names and docstrings that no linter of others knows, with today's counts, which may only fall."""
