"""Training of concept lenses: prompts, activations, vectorised fit, calibration, report."""
