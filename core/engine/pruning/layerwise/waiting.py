"""Inputs that wait in front of layers, while others are still on their way there or for an error to be measured.

Without torch: the pass holds them, and the accounts of memory count them.
"""

ERROR_ROWS = 1024
"""Number of rows of a layer's input, about, on which its reconstruction error is measured where XᵀX is not at hand."""


def waiting_bytes(inputs: int, batch: int, waited: int, waiting: int, own: int) -> int:
    """Return the most bytes while one micro-batch after the other goes from layer to layer, each with its `own`.

    Of an input (a token, an image) there are those with which it has `waited` before, or is `waiting` now. The last
    micro-batch may be smaller.
    """
    last = inputs % batch or batch
    behind = max(0, inputs - batch - last)
    return max(
        batch * own + (inputs - batch) * waited,
        batch * own + behind * waiting + (inputs - batch - behind) * waited,
        last * own + (inputs - last) * waiting,
    )
