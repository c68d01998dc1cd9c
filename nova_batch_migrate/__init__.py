"""Empty OpenStack hypervisors in one operation; see README.md."""
