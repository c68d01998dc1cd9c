"""Mutated migration streams through the relay's parser and codec; see run.py."""
