"""Replay a trace against a model of Ray Serve and let any policy decide the replicas."""
