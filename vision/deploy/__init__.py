"""Trained networks outside PyTorch: exported files, and what runs them."""
