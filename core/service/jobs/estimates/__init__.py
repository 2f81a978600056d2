"""Estimates: the memory, disk and seconds a job will need, by formula and by what measured jobs needed.

`compute` counts operations, `resources` makes bytes and seconds of shapes, with `classifier` and `training` for their
parts; `history` and `corrections` hold them against the fleet's own jobs. Nothing here decides where a job runs.
"""
