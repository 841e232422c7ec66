"""Benchmarks, one program each: a table for people, and one last line of JSON for machines."""
