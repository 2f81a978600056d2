"""Forms of the portal: fields of a page as the body that REST takes, and such a body as fields again.

A file for each form, and `errors.py`, which shows an error at its field. What a body means and whether it is right is
the services' to say; nothing here renders a page.
"""
