"""Token streams: hidden states that go through a model's blocks one after the other, and what is measured of them.

A stream neither chooses nor prunes anything. Passes, allocation and compensation let one through their blocks.
"""
