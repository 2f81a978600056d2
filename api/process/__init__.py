"""Parts of an API process that all requests share: limits, slots, metrics, readiness, and the event listener.

`api.state` has one of each. Nothing here knows a route or a request's answer.
"""
