"""The OpenAPI document: `document.py` completes what FastAPI derives from the routes.

`examples/` has an example for each schema and call, `problem_examples.py` one for each error. Nothing here is asked
while a request is answered, and no route imports it.
"""
