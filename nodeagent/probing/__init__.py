"""
Probes and hooks of seat containers, answered for the kubelet ("frozen is not dead").

Called by: the runtime's socket. `prober` is the way in, `kybernate.decisions.probing` judges,
`actions` and its neighbours ask the workload, `notes` keeps what `kybernate-runc` reads while we
are away, `leaving` is the preStop hook.
"""
