"""Routes, one file per noun. They check the caller, open a transaction, call a service in `core`, and answer."""
