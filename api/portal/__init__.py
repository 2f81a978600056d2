"""Self-service portal: server-rendered pages over the same services as REST.

`app.py` is the application, mounted at /portal. `session.py` identifies the caller and guards every form.
`rendering.py` renders templates, and `formatting.py` formats figures in them. `routes/` has one file per noun, `forms/`
parses the long forms, and `views/` computes the content of pages. The browser gets `templates/` and `static/`;
`static/vendor/` has third-party files by version and hash. Pages work without JavaScript; with it, htmx loads the
changed parts.
"""
