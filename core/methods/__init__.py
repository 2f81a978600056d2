"""Methods: a folder for each published method, composed of `core.engine.pruning` and known by its id.

The parts of one method alone lie in its folder; what two methods share is the engine's. No job or database is known
here, and the registry loads no torch.
"""
