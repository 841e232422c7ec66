"""Telling Kubernetes: events and decisions as they happen, statuses as they stand.

Rule: nothing here is waited for. While the API server is away switching goes on; what is told later
is what stands then, and events from a bounded queue.
"""
