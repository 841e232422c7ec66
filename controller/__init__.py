"""What keeps the cluster's own objects in order. Every replica serves; only the leader writes.

`workloads` a GpuWorkload for each seat pod; `readiness` GpuNodes whose agent is silent; `policies`
the bundle that OPA polls; `certificates` and `issuing` our own CA. Every one is level-based: it
compares what is with what should be, so a missed event, a restart or a second leader does no harm.
"""
