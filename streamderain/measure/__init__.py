"""Measuring: quality metrics, known procedural rain, bench, compare, estimate and doctor."""
