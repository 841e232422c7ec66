"""Kubernetes objects and files to model values and back. Pure: no I/O, no clock."""
