"""The ways a bank computes its lenses.

The rule of the folder: a form holds weights and computes logits; it knows nothing of terms, thresholds of readings or
calibration. Dimensions: S sites, R rows (states), N lenses, P pairs, D d_model, H 128, K units of the second layer.
"""
