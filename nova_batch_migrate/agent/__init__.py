"""nova-batch-agent: what one compute host tells of its servers; one process per host."""
