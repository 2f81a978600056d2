"""Forms of the portal: the fields of a page as a REST body, and a body as fields.

There is a file for each long form; `errors.py` shows an error at its field. A short form is parsed next to the routes
of its page. The services validate a body; nothing here renders a page.
"""
