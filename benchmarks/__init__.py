"""Benchmarks of speed and quality, run from a checkout; results are committed as JSON."""
