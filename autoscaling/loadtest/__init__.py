"""The load tester: an open-loop generator over HTTP, and what it measured.

``plan`` says beforehand what is sent and when; ``generator`` sends it and fills a ``recording``;
``results`` judges the recording; ``store``, ``report`` and ``compare`` keep, show and compare it.
Only ``generator``, ``scaling`` and ``store`` touch network or files.
"""
