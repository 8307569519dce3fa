"""Keeps the examples of the pages true: finds them, runs them, writes their real output back."""
