"""Needles at length: coloured shapes planted in the pixels of long videos, and whether they are found again."""
