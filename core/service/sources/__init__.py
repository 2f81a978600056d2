"""Sources: where models and datasets come from, a folder of this machine, a file of the store or the hub.

References as jobs name them, the hub's listings and its tokens, and folders of headers alone live here. What a team has
registered is the registry's, and what a job makes of a source, the jobs'.
"""
