"""Parts that a process of the API has once for all requests: limits, slots, metrics, readiness, events it hears of.

`api.state` holds one of each. Nothing here knows a route or a request's answer.
"""
