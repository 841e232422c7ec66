"""
`make demo-multiplex`: five models of 40 GB behind one address on one 80 GB GPU, asked as a real
trace asks, and every answer checked.

`python -m testbed.multiplex` starts a stack (testbed/stack) with an activator, replays, and ends
with `demo-multiplex: ok`. Nothing here decides anything: it is a client that counts.
"""
