"""HTTP as every route has it: bounds on what comes in, forms of what goes out, and who asks before a body is read.

Bodies, ranges and problem documents, downloads and parts of uploads, payloads and answers of triggers. Nothing here is
a route, and nothing imports one.
"""
