"""The stories of a workload: park, resume, seal, wake, start; and their ends after a crash."""
