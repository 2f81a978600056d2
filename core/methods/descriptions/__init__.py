"""Descriptions and parameters of the methods, by family; none loads torch."""
