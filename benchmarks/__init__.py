"""Benchmarks, each a command: ``python -m benchmarks.{paper,peers,speed,defaults}``."""
