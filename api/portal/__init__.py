"""The self-service portal: server-rendered pages over the same services as REST.

`app.py` is the application, mounted at /portal. `session.py` says who is asking and guards every form; `rendering.py`
renders templates, `formatting.py` figures in them; `routes/` has one file per noun, `forms/` the long forms they read,
`views/` what they show; `templates/` and `static/` are what the browser gets, `static/vendor/` what others wrote, by
version and hash. Pages work without JavaScript; with it, htmx brings what changes.
"""
