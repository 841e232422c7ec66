"""`kyb resume` and `kyb park`: ask the agent of a workload's node for a switch, and watch it."""
