"""Stages of a job: a folder each, which nothing else names.

`spec` says without torch when a job has the stage, makes the message to the runner, and takes its answer into the
report; `run` does what the message says. Folders without a class of `JobStage` are tasks of a runner outside of jobs'
stages. Modules beside the folders are what several stages share, and the entries of two secluded processes. Nothing is
imported in this file: a process loads what its stage needs.
"""
