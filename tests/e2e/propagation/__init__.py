"""Ground truth for traces over several services: which parent each span must have, and how many have it.

tests/go/propagation is the services, `scenarios` what they do, `run` one scenario with agents and a client, `truth` the
comparison of spans with the services' own logs, `page` the table in docs/propagation.md.
"""
