"""Commands of version 1 of the batch migration API."""
