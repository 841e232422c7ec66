"""The workloads that are here: their lives, what happens in them, and how it is told."""
