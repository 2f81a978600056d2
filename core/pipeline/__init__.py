"""The pipeline: one job from its recipe to its artifact, by the engine and the methods.

`messages` has what the stages are told, `results` what they answer: both sides of a runner know these, without torch,
which only plans, passes and stages load. Databases, teams and queues have no place here: the service stands on this,
never the other way round.
"""
