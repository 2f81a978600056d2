"""Units: heads, channels, layers and filters that are removed as one, from language models and from classifiers.

The context in which a method ranks them, plans, the removal itself and what of a network is coupled live here; the
rankings of a single method are beside that method.
"""
