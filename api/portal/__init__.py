"""The self-service portal: server-rendered pages over the same services as REST.

`app.py` is the application, mounted at /portal. `session.py` says who is asking and guards every form; `page.py`
renders templates; `routes/` has one file per noun; `templates/` and `static/` are what the browser gets,
`static/vendor/` what others wrote, by version and hash. Pages work without JavaScript; with it, htmx brings what
changes.
"""
