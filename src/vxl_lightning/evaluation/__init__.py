"""Benchmarks from local copies, needles at length, and what their figures are worth."""
