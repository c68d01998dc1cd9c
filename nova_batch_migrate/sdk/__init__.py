"""openstacksdk's view of the batch migration API, for scripts and for the command line."""
