"""Kinds of simple tasks, one a module: its `TASK` is a `SimpleTask`."""
