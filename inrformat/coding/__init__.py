"""Exact integers only: the sine table, the frozen distributions, the entropy coder, the quantised network."""
