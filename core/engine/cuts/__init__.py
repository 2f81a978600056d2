"""Cuts: a request to remove something, the plan and the sizes that follow, and the protocol of a kind of removal.

Exporters and passes read them without knowing the kind. Nothing here loads torch.
"""
