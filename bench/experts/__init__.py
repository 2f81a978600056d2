"""The experts' bench: `python -m bench.experts`. A mixture made of a real model, pruned inside its experts and by whole
ones, judged on text that nothing was fitted to.
"""
