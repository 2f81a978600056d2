"""Sources of models and datasets: a folder of this machine, a file of the store, or the hub.

This package has the references in jobs, the hub's listings and tokens, and header-only folders. A team's registered
objects belong to `registry`, and the use of a source in a job to `jobs`.
"""
