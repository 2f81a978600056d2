"""Bytes of inputs that wait in front of layers while others are still on their way there. Without torch."""


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
