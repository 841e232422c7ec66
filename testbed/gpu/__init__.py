"""
GPUs that are not there: a service that owns the VRAM of some cards and behaves as cards do.

Sizes are those of the pretended card, contents are 1/scale of them, and a copy takes as long as the
pretended bytes would take on the bus. Everything else is real: processes keep their state in it,
too much is refused, and a killed process's memory is free.

`card` and `memory` say what is where, `gate` who may touch it when, `bus` how long a copy takes,
`content` what the bytes are, `device` puts them together, `service` speaks gRPC.
Called by: the node agent and model servers, over a unix socket (kybernate/clients/pb/simgpu.proto).
"""
