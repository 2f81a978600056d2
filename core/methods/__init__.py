"""Methods: every published method, composed of `core.engine.pruning` and known by its id.

`descriptions` says what each is and takes, without torch; `registry` lists them and their classes, and `engine` loads
these. The engine holds the parts that several methods share. This package knows no jobs and no database.
"""
