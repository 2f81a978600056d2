"""OpenAPI document: `document.py` completes the one that FastAPI derives from the routes.

`examples/` has an example for each schema and call, `problem_examples.py` one for each error. No request uses this
package, and no route imports it.
"""
