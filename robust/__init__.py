"""Attacks, adversarial training and distillation. Nothing is here yet; it will stand on :mod:`vision`, never on snn."""
