"""State of batches in a database; only the conductor and nova-batch-manage come here."""
