"""What a job is: its tables, states and schemas, the checks before it is queued, the queue of record that workers claim
from, and the hints that tell them to look.
"""
