"""What the agent knows of Linux: processes, cgroups, freezing them, noticing their end."""
