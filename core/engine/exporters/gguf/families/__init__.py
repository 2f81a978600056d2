"""Families of GGUF: a module each, named after the `model_type` of its config["json"], which the registry finds.

Each says in `FAMILY` what llama.cpp calls an architecture, its tensors and its settings, and what it cannot compute.
"""
