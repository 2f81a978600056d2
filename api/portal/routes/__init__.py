"""Pages of the portal, one file per noun."""
