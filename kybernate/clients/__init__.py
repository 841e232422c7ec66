"""Whom we talk to: one adapter per outside thing, foreign errors translated in `errors.py`."""
