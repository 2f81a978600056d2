"""Stages of a job: one folder each, found by the registry and named by nothing else.

`spec` works without torch: it decides whether a job has the stage, makes the message to the runner, and puts the answer
into the report. `run` does the task in the message. A folder without a class of `JobStage` is a task of a runner
outside a job's stages. Modules beside the folders hold code that several stages share, and the entry points of two
secluded processes. This file imports nothing, so that a process loads only the libraries of its own stage.
"""
