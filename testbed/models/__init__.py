"""
Workloads for the simulated GPU: a model server and a trainer, real processes that keep their state
in its memory.

They read what the device plugin gives a container (CUDA_VISIBLE_DEVICES, KYB_SIMULATED_GPU) and
what the pod gives itself (POD_NAME, POD_IP). They know nothing of parking: their calls to the GPU
take longer then, that is all.
Called by: pods of the demo, the tests and the benchmarks, as `python -m testbed.models`.
"""
