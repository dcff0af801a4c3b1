"""Labelled video made from the footage and photographs that installed packages ship."""
