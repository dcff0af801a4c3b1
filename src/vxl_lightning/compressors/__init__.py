"""Compressors: grid cells to tokens. ``base`` is the contract, every other file one method."""
