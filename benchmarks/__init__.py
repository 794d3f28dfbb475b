"""Benchmarks: they measure and print ratios, and never fail a build. Run them with ``make bench``."""
