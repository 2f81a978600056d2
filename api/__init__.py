"""The REST API, over the services in `core`. Never imports torch.

`app.py` puts it together, with `slow_clients.py` as the server's protocol: deployments start both by name. `state.py`
is what a process has, `dependencies.py` what routes ask for; `routes/` has one file per noun. `http/` is what all
requests and answers have in common, `events/` how a job is followed, `openapi/` the document, `authorization.py` its
table of who may call what, and `portal/` the pages, an application of its own.
"""
