"""Programs that use a GPU as any program does, and know nothing of being parked: see `parking`."""
