"""A simulated accelerator: torch devices `sim:0` and `sim:1`, whose memory and operators are the CPU's.

It is a backend of torch written in Python, and behaves towards a program as CUDA does: operands on different devices
are refused, memory is counted and has an end, copies, launches and synchronisations are counted. Values are right,
those of the CPU's own operators. `docs/gpu.md` says what it is for, and ADR 28 what it cannot show.

`simulate()` gives the product two such devices as its fastest; outside of it there are none.
"""
