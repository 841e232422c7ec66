"""
A stand-in for `vllm serve`: its endpoints over HTTP, its weights in the simulated GPU's memory.

As documented for vLLM 0.14 and later (Sleep Mode, Production Metrics, the OpenAI-compatible
server): `/health`, `/version`, `/v1/models`, `/v1/completions` (also streamed), `/metrics`, and
with `VLLM_SERVER_DEV_MODE=1` and `--enable-sleep-mode` also `/sleep?level=&mode=`,
`/wake_up?tags=`, `/is_sleeping`. It computes nothing: an answer names the model, counts its
requests in the card's memory and says whether the contents there are whole.
Called by: tests and `make demo-multiplex`, as `python -m testbed.vllm`.
"""
