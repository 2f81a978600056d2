"""Architectures that are known: a module each, named after the `model_type` of its config.json.

Each module says in `ARCHITECTURE` all that the engine must know of one, and imports nothing but parts that several
share (`core.engine.architectures.llama_like`, `vit_like`). `core.engine.architectures.registry` finds them; nothing
else names one.
"""
