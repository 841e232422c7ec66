"""
Checkpoint artifacts of the provisional local format v0: docs/reference/checkpoint-v0.md.

    with store.draft("default", "llama-0-20261122T101500Z", need=40 * GIB) as draft:
        ...                                     # CRIU writes below draft.folder
        draft.write("gpu/0", slot.read(name))   # hashed while it is copied
        sealed = draft.seal(facts)              # whole and visible, or an error and nothing
    publisher.publish(sealed)                   # told to the cluster, now or when it is back

    claimed = claims.take(namespace, name, pod) # Claimed, or a Refusal: next candidate
    sealed = peers.fetch(claimed, node)         # from another node's agent, if it is not here
    sealed = store.open(namespace, name, here)  # every byte verified; Unusable(reason) else

Called by: the stories that seal and wake; the gRPC service that lends to other agents.
Rules: what comes from a disk or a peer is hostile until its signature and digests are checked;
names never become paths before `kybernate.artifacts.names` has passed them; a checkpoint holds
regular files in folders and nothing else (whatever needs links, modes or owners is packed into an
archive by its maker); a sealed one never changes.
"""
