"""Functions that the studies measure with, in processes of their own."""
