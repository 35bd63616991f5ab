"""The stack exporter: what has no good exporter of its own: queue, certificates, DNS, MTA-STS, ClamAV, olefy.

`python -m exporters.stack`, a process of its own that needs nothing of the guard.
"""
