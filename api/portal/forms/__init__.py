"""Forms of the portal: fields of a page as the body that REST takes, and such a body as fields again.

A file for each long form, and `errors.py`, which shows an error at its field; a short form is read beside the routes of
its page. What a body means and whether it is right is the services' to say; nothing here renders a page.
"""
