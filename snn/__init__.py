"""Spiking networks and online learning rules. Nothing is here yet; it will stand on :mod:`vision`, never on robust."""
