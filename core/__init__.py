"""What pruning is and what a job is. Imports neither `api` nor `worker`."""
