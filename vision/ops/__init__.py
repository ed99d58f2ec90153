"""Numeric kernels with one Python face each: the selective scan, and the four-direction scan of an image."""
