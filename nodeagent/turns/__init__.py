"""Whose turn it is: the seat coordinator, the switches it starts, and why others wait."""
