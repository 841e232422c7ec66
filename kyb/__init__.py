"""The command line: speaks to the API server and to agents, decides nothing."""
