"""
The node agent: who is in VRAM, who is parked, and the switch between them.

`coordinator` decides (with `kybernate.decisions`), `switching` carries out, `park`, `resume` and
`start` are the three stories, each journalled; `recovery` ends what a dead agent left half done.
`containers` learns of workloads, `api` serves, `reporting` tells Kubernetes.
"""
