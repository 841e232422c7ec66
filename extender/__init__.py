"""The kube-scheduler's extender: answers filter, prioritize and preempt from a view of the cluster.

It writes nothing while it answers. `__main__` starts it, `app` has the routes, `wire` the JSON,
`placing` the decisions, `view` the watches, `recorder` tells afterwards what was decided and why.
"""
