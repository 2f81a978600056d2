"""Registry of a team's models and datasets by name: their location, content and hash.

They are registered from folders of this machine, uploaded in parts, or looked up on the hub (`core.service.sources`).
"""
