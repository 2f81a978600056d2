"""The portal's pages, one file per noun."""
