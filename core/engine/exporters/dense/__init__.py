"""Plain safetensors: what every artifact is written as first, and stays where no other form is asked for."""
