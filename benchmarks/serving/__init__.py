"""Treeline beside what a user would pick instead, over HTTP, on this machine.

`contenders` says who takes part and how each is started, `peers/` holds their small applications,
`measure` runs them one at a time in interleaved rounds, `report` writes what came out.
"""
