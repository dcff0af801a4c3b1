"""Variants x budgets x seeds: cells cached by what they depend on, resumable, accounted for."""
