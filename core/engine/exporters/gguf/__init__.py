"""GGUF files beside an artifact's weights, each held against the artifact in the real llama.cpp before it is kept."""
