"""Hypothesis as CI runs it: the same examples every time, and no clock to fail on."""

from hypothesis import settings

settings.register_profile("treeline", derandomize=True, deadline=None)
settings.load_profile("treeline")
