"""The ready-made pipeline steps of examples/pipelines, run as they stand against real service processes; only what
prunes is the stand-in runner, which reports the figures it is told.
"""
