"""Resolution: a job made of a request, with every reference looked up, every choice made and every limit checked.

`job` goes through a request and the other modules each resolve a part of it. What a job will need is said by
`core.service.jobs.estimates`; nothing is queued here.
"""
