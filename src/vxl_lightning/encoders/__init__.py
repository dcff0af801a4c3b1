"""Encoders: frozen vision towers that turn frames into grid cells. ``base`` is the contract."""
