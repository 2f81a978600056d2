"""Measured tables: perplexity, latency and time of each method on a sample model, as data; the benches write them."""
