"""HTTP as every route has it: bounds on what comes in, forms of what goes out, and what is counted on the way.

Bodies, ranges, rates, proxies and problem documents, downloads and parts of uploads, payloads and answers
of triggers, and the metrics that Prometheus scrapes. Nothing here is a route, and nothing imports one.
"""
