"""Ablations and baselines: arms × seeds at equal numbers of evaluations, and what may be concluded from them."""
