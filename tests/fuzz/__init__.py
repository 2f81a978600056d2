"""Files of strangers, broken in every way we could think of, read by the real readers with little memory."""
