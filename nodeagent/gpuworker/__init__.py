"""
The process beside the agent that uses one GPU: it maps workloads' memory, copies and fingerprints.

Started and asked by the `guest` mechanism (`client`). It is a process of its own, one for each
card, so that a sticky CUDA error of one card ends nothing else, and the agent holds no context.
It outlives its agent: the next one takes it up with all it has pinned, if it is of the same build.
Rule: what arrives here comes from the agent alone; contents never pass through Python.
Rule: it can be killed at any moment: nothing that lasts is kept here.
"""
