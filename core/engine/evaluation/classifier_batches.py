"""Numbers of images that pass through a classifier together. Without torch."""

MEASURED_AT_ONCE = 128
"""Images per forward when accuracy or loss is measured, or a calibration set is passed over."""
CHECKED_AT_ONCE = 32
"""Images per forward when a saved model is checked."""
TIMED_AT_ONCE = (1, 32)
"""Images per forward when models are timed."""
