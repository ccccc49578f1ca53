"""Drift detection: false alarms, power, time and memory, beside what a user would pick instead.

`worlds` draws rows without drift, `changes` says what changes in them, what is asked and what the
best possible test would reach, `reports` counts alarms, `weather` judges real data, `cost` takes
times, `rivals` puts SciPy, Evidently and NannyML (`peers/`, each in its own environment) beside.
"""
