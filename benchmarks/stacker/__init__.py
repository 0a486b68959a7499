"""Stacked distributions beside each of their members."""
