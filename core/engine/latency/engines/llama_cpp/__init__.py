"""GGUF files in llama.cpp, whose layers may differ in shape and have no attention."""
