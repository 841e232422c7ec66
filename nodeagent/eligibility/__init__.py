"""
What keeps a running workload from being parked, or from being parked whole: known at run time only.

judging    facts about its processes -> obstacles, each with a constant reason; pure
facts      from /proc, and from the guests

Called by: `reporting.obstacles` (tells), `mechanisms.real` (refuses). What shows in the pod itself
is refused at its admission (webhook/preload.py); what is the node's stands in its GpuNode
(gpus/coexistence.py).
Rule: all obstacles are told at once, those that forbid parking first.
"""
