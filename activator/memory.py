"""
How much memory requests take together. Called by: `front`, for every part of a body.
"""


class Memory:
    """Bytes that bodies may take, of all clients together, from their first byte until they are
    answered."""

    def __init__(self, most: int) -> None:
        self._most, self.size = most, 0

    def take(self, size: int) -> bool:
        """Whether there is room; then it is taken."""
        if self.size + size > self._most:
            return False
        self.size += size
        return True

    def give_back(self, size: int) -> None:
        """They are not needed any more."""
        self.size -= size
