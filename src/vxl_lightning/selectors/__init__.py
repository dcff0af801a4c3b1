"""Selectors: what of a compressed video a question needs. ``base`` is the contract."""
