"""What keeps the cluster's own objects in order. Every replica serves; only the leader writes.

`workloads` a GpuWorkload for each seat pod; `checkpointing` and `restoring` what people ask for;
`claims` checkpoints whose pod is gone; `retiring` those nobody keeps; `tiers` where copies are;
`readiness` GpuNodes whose agent is silent, `departures` those whose Node is gone; `policies` the
bundle that OPA polls, `keeping` the last good one; `certificates` and `issuing` our
own CA. Every one is level-based: it compares what is with what should be, so a missed event, a
restart or a second leader does no harm.
"""
