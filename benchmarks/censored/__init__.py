"""Censored responses of known law: are parameters found, and how good are predictions."""
