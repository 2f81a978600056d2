"""Jobs: their tables, states and schemas, the checks before a submit, and the queue.

`resolution` turns a request into a job, and `estimates` predicts what the job needs. `core.service.sources` knows where
models and data come from.

The queue of record, from which workers claim, is in PostgreSQL. Hints through the broker tell workers to look at it.
"""
