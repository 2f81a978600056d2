"""Reports: the description of an artifact in its model card, manifest and charts.

They are written from figures that other packages measured. Nothing here reads tensors or imports torch.
"""
