"""Plain safetensors: the first form of every artifact, and the final one where a job requests no other."""
