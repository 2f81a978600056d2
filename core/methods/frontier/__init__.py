"""Frontier: description and parameters in `info`; its mathematics are those of `admm`."""
