"""The pipeline: one job from its recipe to its artifact, by the engine and the methods.

Databases, teams and queues have no place here: the service stands on this, never the other way round.
"""
