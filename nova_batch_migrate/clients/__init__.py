"""The only modules that speak to other OpenStack services; the conductor is their only caller."""
