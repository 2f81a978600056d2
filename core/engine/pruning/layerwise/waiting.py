"""Inputs that wait before layers, until all others arrive or an error is measured.

Without torch, because both the pass and the memory estimates use it.
"""

ERROR_ROWS = 1024
"""Approximate number of rows of a layer's input on which its reconstruction error is measured without XᵀX."""


def waiting_bytes(inputs: int, batch: int, waited: int, waiting: int, own: int) -> int:
    """Return the peak bytes while one micro-batch after the other goes from layer to layer.

    `own` are the bytes of a micro-batch on its way. Each input (a token, an image) has `waited` bytes before it moves,
    and `waiting` bytes afterwards. The last micro-batch may be smaller.
    """
    last = inputs % batch or batch
    behind = max(0, inputs - batch - last)
    return max(
        batch * own + (inputs - batch) * waited,
        batch * own + behind * waiting + (inputs - batch - behind) * waited,
        last * own + (inputs - last) * waiting,
    )
