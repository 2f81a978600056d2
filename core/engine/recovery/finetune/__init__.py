"""Fine-tuning: description in `info`, trained parameters and loss in `method`."""
