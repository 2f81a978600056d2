"""HTTP parts common to all routes: limits on requests, forms of answers, and authentication before a body is read.

This package has bodies, ranges and problem documents, downloads and parts of uploads, and the payloads and answers of
triggers. It contains no routes and imports none.
"""
