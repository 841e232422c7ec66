"""
Where objects are kept, one port (`port.Store`) and an adapter for each place:

    ram.Ram          this process; also the fake of the others, under the same contract
    nvme.Nvme        a folder on a disk: O_DIRECT, parallel, preallocated, synced in order
    bucket.Bucket    an S3 bucket
    peer.Peer        what another node's agent lends, over gRPC and mutual TLS

and decorators, which make a Store of a Store: `retrying`, `limited`, `verified`, `metered`,
`below`.

Called by: `kybernate/ladder`, `kyb`. Rule: an object is there whole or not at all, and is
durable when `put` has returned. Rule: foreign errors stop here; `errors.py` is all there is.
"""
