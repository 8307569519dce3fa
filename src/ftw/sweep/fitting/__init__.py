"""Fitting of lenses: text to fit on, tuned translators, the Prism rotation, temperatures, and what they must prove.

The rule of the folder: what is fitted on one part of the text is judged on another, and the verdict is stored with it.
"""
