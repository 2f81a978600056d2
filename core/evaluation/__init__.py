"""What a cut cost: perplexity from streamed hidden states, and latency of dense and pruned in turn."""
