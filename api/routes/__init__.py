"""Routes, one file per noun. They check who asks, open a transaction, call a service in `core`, and answer."""
