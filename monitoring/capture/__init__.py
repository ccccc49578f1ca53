"""Capture in the replica: mask, number and journal each event, then hand it to the agent.

The request path calls ``Recorder.record``; everything after it happens off the request path.
"""
