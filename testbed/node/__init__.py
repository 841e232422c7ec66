"""
Real nodes on this machine: kubelet, containerd, runc, CRIU, each node as if it had its own machine.

`realnode.RealNode` is what tests and the demo ask for; `machine.why_not` says who cannot have one.
What lives here, from the bottom up: `kernel`, `mounts`, `cgroups`, `network` know one thing of
Linux each; `keeper`, `inside`, `enter`, `forwarder` are the small programs that use them;
`configuration`, `images`, `programs` say what containerd and the kubelet run with.

Called by: tests, the demo, benchmarks. Needs root, which nothing else in the testbed does.
Rule: nothing is imported here: the small programs start without installed packages.
"""
