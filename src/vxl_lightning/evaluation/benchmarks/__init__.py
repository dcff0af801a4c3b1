"""Published benchmarks, one a file, read from local copies in their published layouts."""
