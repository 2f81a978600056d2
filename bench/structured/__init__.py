"""The structured frontier's bench: `python -m bench.structured`. Every method that makes a model smaller, at shares of
the blocks' parameters, judged in and out of domain, timed, and asked zero-shot tasks.
"""
