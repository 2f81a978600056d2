"""Discoveries: who asks, who looks, and the jobs that wait for them."""
