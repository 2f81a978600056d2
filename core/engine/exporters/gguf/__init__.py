"""GGUF files beside an artifact's weights, each compared with the artifact in llama.cpp before it is kept."""
