"""
The node agent: who is in VRAM, who is parked, and the switch between them.

`turns` decides (with `kybernate.decisions`) and carries out; `stories` holds what is done to one
workload, each step journalled, and ends what a dead agent left half done; `mechanisms` move VRAM.
`containers` learns of workloads, `waking` brings them from checkpoints, `demand` sees who asks,
`api` serves, `reporting` tells Kubernetes. What a folder may import is a contract (pyproject.toml).
"""
