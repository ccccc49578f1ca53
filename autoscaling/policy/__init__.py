"""Decide how many replicas hold the latency objective. Pure: no Ray, no clock, no I/O."""
