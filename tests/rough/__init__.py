"""Inputs that are bad, or look it, and what each command makes of them: `python -m tests.rough` prints the table."""
