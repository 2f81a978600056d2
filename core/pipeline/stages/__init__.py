"""Stages of a job, and the tasks that runners do for them; `registry` is the table of both.

A module `*_spec` works without torch: it says which jobs have a stage, makes the message to the runner, and puts the
answer into the report. The module that does the task in the message is loaded by the runner alone. This file imports
nothing, so that a process loads only the libraries of its own task.
"""
