"""The agent's gRPC servers: to its own node over a unix socket, to the cluster over mTLS."""
