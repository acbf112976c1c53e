"""Real parts for end-to-end tests: a Go target, the agent, a receiver, a client, and what a span must say.

A test reads: start a `Target`, start an `Agent` on it that exports to a `Receiver`, send requests with `client`, stop
the agent, and compare what was received with the target's own log by `expect`.
"""
