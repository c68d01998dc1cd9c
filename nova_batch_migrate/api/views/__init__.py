"""What answers look like: the conductor's dictionaries with links, one module per kind."""
