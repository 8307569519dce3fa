"""The reference model: everything that builds, trains and measures the small language model in the package.

``python -m tools.reference_model`` runs the whole recipe: corpus, tokenizer, training, evaluation, card.
"""
