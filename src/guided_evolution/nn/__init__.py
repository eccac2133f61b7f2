"""Helpers for PyTorch problems: data as one tensor, training recipes, honest parameter counting.

Nothing here is imported by the rest of the package: an `evaluate.py` imports what it wants. Needs the
extra `guided-evolution[torch]`.
"""
