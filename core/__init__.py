"""Domain code of the pruning service: jobs, models, methods and their storage. Imports neither `api` nor `worker`."""
