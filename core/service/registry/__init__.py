"""Registry of a team's models and datasets by name: their location, content and hash.

A model or dataset is registered from a folder of this machine, or uploaded in parts. Those on the hub are looked up by
`core.service.sources`.
"""
