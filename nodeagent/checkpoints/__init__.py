"""
Checkpoints on this node, in the format stores have them in: docs/reference/checkpoints.md.

    with store.draft("default", "llama-0-20261122t101500z", need=40 * GIB, like=facts) as draft:
        ...                                     # CRIU writes below draft.folder
        draft.write("gpu/0", pieces)            # named, sealed and put while it is read
        sealed = draft.seal(facts)              # whole and visible, or an error and nothing
    publisher.publish(sealed)                   # told to the cluster, now or when it is back

    claimed = claims.take(namespace, name, pod) # Claimed, or a Refusal: next candidate
    sealed = store.believed(namespace, name, here)       # its contents are checked as they are read
    sealed = peers.fetch(wanted, node, use=take_out)     # what is not here comes, and is used then

Called by: the stories that seal and wake; the gRPC services that lend and carry copies.
Rules: what comes from a disk or a peer is hostile until its signature and its chunks are checked;
names never become paths before `kybernate.artifacts.names` has passed them; a checkpoint holds
regular files in folders and nothing else (whatever needs links, modes or owners is packed into an
archive by its maker); a sealed one never changes.
"""
