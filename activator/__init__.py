"""The activator: one address for many models, and requests that wait for a model that sleeps.

For what has no process or no address of its own: a Deployment at zero replicas, a model whose pod
is parked, many models behind one name. Rule: it decides nothing about GPUs and keeps nothing. What
stands is watched (API server, agents), what is wanted is asked for (agents; for a Deployment at
zero the controller), and a request is held until its model answers, never longer than it may.
"""
