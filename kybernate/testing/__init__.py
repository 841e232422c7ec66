"""Fakes and builders, shipped so that everybody tests against the same ones."""
