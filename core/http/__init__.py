"""HTTP to other machines: calls to addresses that users give, made only to public addresses.

The API handles incoming requests; this package does not.
"""
