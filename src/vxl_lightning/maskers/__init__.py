"""Maskers: which cells to hide during reconstructive pretraining. ``base`` is the contract."""
