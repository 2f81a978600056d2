"""Map of quality over bytes: the judge pruned and dense, in 16, 8 and 4 bits."""
