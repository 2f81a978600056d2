"""LoRAShear: the method, the units it spares, and its steps."""
