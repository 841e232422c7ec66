"""The main job, live: five models of 40 GB and a trainer share one 80 GB GPU.

`python -m testbed.demo` starts a stack (testbed/stack), plays the scenario once, prints what
kubectl shows, and ends with `demo: ok`. Nothing here decides anything: it is a client and a story.
"""
