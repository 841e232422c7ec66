"""
`kyb doctor`: what a node has, what Kybernate wants of it, and how to mend the difference.

facts      what is there, as values; `Unknown` where it could not be seen
supported  the versions and sizes that are wanted, and which of them were tried
checks     facts -> findings, pure; one function a check
seen       the same of what the API server tells about every node
host, containerd, kubelet, runtimeconf, node, rates, objectstore    the adapter that looks at this
           machine, and tries the object store from it
command    the command line: facts, findings, table or JSON, exit status

Called by: `kyb.__main__`; `host` and `containerd` by `kyb.nodefiles`, too.
Rule: looking changes nothing but one temporary file and, where a store is named, some objects that
are deleted again; it takes seconds.
"""
