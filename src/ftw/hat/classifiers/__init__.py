"""Concept lenses (residual to score), the bank that scores thousands of them at once, and their files."""
