"""Planning of batch migrations: telemetry in, an ordered and explained plan out.

Called by the conductor and, for its value types, by the agent. Never does I/O, reads a clock or
draws a random number: the same input gives the same plan.
"""
