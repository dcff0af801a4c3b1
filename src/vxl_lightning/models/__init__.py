"""Models: a compressor with its decoder, and a video language model around any causal LM."""
