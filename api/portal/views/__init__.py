"""Views of the portal: the content of pages, computed from jobs, reports and events for the templates.

There is a file for each part of a page, from the summary sentence of a job to its charts. They use only their arguments
and the services. The templates decide how the content looks, and `routes/` the addresses.
"""
