"""Learning of containers on seats: when they are made, found again, and ended."""
