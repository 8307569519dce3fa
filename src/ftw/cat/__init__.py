"""CAT, the Conjoined Adversarial Tomograph (layer 2.5): divergence between what is represented and what is written.

Windows, assessments and the judge will live here.
"""
