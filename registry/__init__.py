"""Which checkpoints exist, where, how good, and what happened to them: without the Kubernetes API.

`service` the gRPC API; `catalogue` the port to what is kept, `sql` in SQLite or PostgreSQL,
`memory` in this process. Rules: agents tell, nobody else; what is answered for is on the disk; the
history only grows; all rows can be had again from the artifacts, so nobody's work waits for us.
"""
