"""The layer sweep: what every transformer block would say next, read through vocabulary lenses.

`run.Sweep(model, lenses).run(battery)` answers it for many prompts in one table, `peek` for one prompt. What is read is
`forward`'s, how it is read the lenses', what is measured `metrics`', and `decode` brings them together.
"""
