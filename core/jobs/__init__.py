"""Jobs: their tables, states and schemas, the checks before they are queued, and the queue.

The queue of record, from which workers claim, is in PostgreSQL; hints through the broker tell workers to look at it.
"""
