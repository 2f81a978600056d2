"""What a file of so many bytes is worth: pruned models in 16, 8 and 4 bits against dense ones, on the judge."""
