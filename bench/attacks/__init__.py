"""Attacks from outside at real processes; `python -m bench.attacks` runs them and writes a table."""
