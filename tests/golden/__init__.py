"""A comparison of two revisions of the service on one machine, by what its users get.

`python -m tests.golden.compare BASE HEAD` installs both revisions, has each run the same jobs through its REST API, the
same again killed in the middle and resumed, and compares artifacts byte by byte, bodies, reports and the OpenAPI
document. A change that should move no number runs it and shows that nothing differs.
"""
