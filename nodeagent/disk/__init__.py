"""What outlives the agent: journal and records, the RAM pool, notes; whole or not there."""
