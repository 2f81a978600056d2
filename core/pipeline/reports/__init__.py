"""Reports: what an artifact says about itself, in a model card, a manifest and charts.

They are written from figures that others measured; no tensor is read here, and nothing imports torch.
"""
