"""From a workload to a checkpoint, and from a checkpoint to a container that goes on."""
