"""Responses of known density: how far a fit is from what can be known."""
