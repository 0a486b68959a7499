"""The study behind the defaults."""
