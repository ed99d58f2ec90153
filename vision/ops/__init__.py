"""Numeric kernels with one Python face each. None is here yet."""
