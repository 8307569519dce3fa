"""The layer sweep: what every transformer block would say next, read through vocabulary lenses.

`peek` answers it for one prompt. Batteries, tuned and prism lenses, milestones, audits and reports will live here.
"""
