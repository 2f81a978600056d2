"""Views of the portal: what pages show, worked out of jobs, reports and events for the templates.

A file for each part of a page, from the sentence that sums a job up to its charts. They read and write nothing but what
they are given or ask a service for; how it looks is the templates' to say, and addresses are those of `routes/`.
"""
