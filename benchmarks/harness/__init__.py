"""What benchmarks share: light nodes in bulk, bursts of pods, idle extenders, the report."""
