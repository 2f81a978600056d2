"""LoRA: description in `info`, what is trained and its loss in `method`."""
