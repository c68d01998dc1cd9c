"""The HTTP API: a paste filter in nova-api, or the same application alone.

It knows HTTP, policies and the conductor's RPC client, and neither Nova's code nor the database.
"""
