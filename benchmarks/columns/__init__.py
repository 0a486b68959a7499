"""Columns of categories and missing values, by the package's own encoding and by others."""
