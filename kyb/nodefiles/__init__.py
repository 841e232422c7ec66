"""
What Kybernate puts on a node: kybernate-runc and its settings, CRIU's plugin, the guest library,
containerd's drop-in file.

snippet        the text of the drop-in file, pure
distributions  who brings containerd along, and how it is restarted there; pure
plan           what is there -> what to write, keep or remove, and what is left for people; pure
standing       the adapter that looks
carrying       the adapter that carries a plan out
command        `kyb install-node` and `kyb uninstall-node`

Called by: `kyb.__main__`, an init container of the node agent, people on a node.
Rule: doing it again changes nothing; what people edited is kept and said.
Rule: containerd is never restarted from here. It is said when that is needed, and pods run on.
Rule: nothing is taken from under containers that were made with it.
"""
