"""
The kubelet's device plugin: says which seats a node has, prefers some, and hands them out.

One plugin server per resource (`kyb.ai/gpu-1x-seat`, ...), all in one process.
`offer` decides (pure), `wire` speaks protobuf, `server` answers the kubelet, `registration` keeps
us known to it, `watching` follows the GPUs' health, `agent` asks the node agent what it prefers.
Rule: it keeps nothing. The kubelet's device ids are the truth about who has which seat.
"""
