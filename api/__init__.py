"""REST API over the services in `core`. Never imports torch.

`app.py` builds the application, and `slow_clients.py` is the server's HTTP protocol: deployments start both by name.
`state.py` has the state of a process, and `dependencies.py` the dependencies of routes; `routes/` has one file per
noun. `http/` has the common parts of requests and answers, `events/` the streams of job events, and `openapi/` the
OpenAPI document. `authorization.py` prints the table of who may make which call. `portal/` has the pages, which are an
application of their own.
"""
