"""Handlers, one module per resource: check the policy, parse, call the conductor, answer."""
