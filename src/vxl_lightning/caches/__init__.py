"""Compressors inside the language model: what it keeps of a video after reading it."""
