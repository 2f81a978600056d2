"""Pipeline: one job from its recipe to its artifact, by the engine and the methods.

`messages` defines what a supervisor and a runner send each other. Both sides import it without torch; only plans,
passes and stages load torch. This package knows no databases, teams or queues: the service imports it, never the
reverse.
"""
