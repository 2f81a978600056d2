"""Questions whose answers nobody waits for: who needs one does without it at first, and a worker answers it meanwhile.

What a pass over a model's blocks holds, what a classifier's passes take, which tokens a text uses. An answer is kept by
the contents of its question, so that the next request for the same has it, of whatever team.
"""
