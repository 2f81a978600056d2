"""Token streams: hidden states that go through a model's blocks one after the other, and measurements on them.

A stream neither chooses nor prunes anything. Passes, allocation and compensation run streams through their blocks.
"""
