"""Models and texts a team has by name: where they lie, what they hold, and the hash of their content.

They are registered from folders of this machine, uploaded in parts, or looked up on the hub; the sweep of orphans keeps
the store to what rows name.
"""
