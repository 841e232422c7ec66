"""
What NVML shows, compared with what should be there. Called by `cards` and `neighbours`.

own       which processes on a card are the agent's own workers
holders   who keeps the driver's descriptors of a card open: bytes that are no process's any more
books     use by workload against what its state entitles it to; pure
"""
