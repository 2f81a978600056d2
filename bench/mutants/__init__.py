"""Realistic faults, tried one at a time: each is a small change to the product that some test must notice."""
