"""The rules and pages of the benchmarks; no benchmark is run."""
