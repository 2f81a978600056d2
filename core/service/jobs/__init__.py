"""Jobs: their tables, states and schemas, the checks before they are queued, and the queue.

`resolution` makes a job of a request, `estimates` says what it needs; where models and data come from is
`core.service.sources`.

The queue of record, from which workers claim, is in PostgreSQL; hints through the broker tell workers to look at it.
"""
