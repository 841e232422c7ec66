"""The cards of the node: what is in them, and who else is on them."""
