"""Declared architectures, one module each, named after the `model_type` of its config.json.

Each module's `ARCHITECTURE` has all facts that the engine needs. It imports only parts that several modules share
(`core.engine.architectures.llama_like`, `vit_like`). `core.engine.architectures.registry` finds the modules; nothing
else names one.
"""
