"""Compressors whose tokens are learned queries: each looks over a group's cells for what it was trained to find."""
