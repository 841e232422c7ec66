"""
A stand-in for the kubelet that needs no root: real protocols, pods as local processes.

From the bottom up: `book` keeps which pod has which devices, `plugins` speaks the device plugin
protocol, `podresources` tells who has what; `podspec` and `podstatus` read and write pods (pure),
`container` runs one process, held at an exec FIFO as runc does, `podlife` is one pod from admission
to deletion; `nodeobject` is the Node and its Lease; `node` puts them together, `bulk` registers
many nodes that run nothing.
Called by: tests, the demo, the benchmarks, as `python -m testbed.lightnode`.
Rule: killed at any moment and started again, it goes on with the pods it had.
"""
