"""
A real control plane on one machine, without a container engine.

What lives here, from the bottom up:
`assets` builds the binaries, `pki` makes certificates, `processes` starts and surely stops them,
`controlplane` and `opa` are what tests, the demo and the benchmarks ask for,
`projection` stands in for the kubelet's Secret volumes, `node` runs real kubelets and containers.

Called by: tests, benchmarks, `kyb up`. Nothing here is shipped in an image.
Rule: loopback only, no root, nothing outside the caller's work folder and the user's cache folder;
`node` alone needs root, for namespaces and cgroups, and takes all of them down again.
"""
