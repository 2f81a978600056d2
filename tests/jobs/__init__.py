"""The queue of record and what is done with jobs."""
