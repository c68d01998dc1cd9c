"""The two-host cloud on one machine: installs, configures, starts, checks and stops it.

Called by the executables in lab/ and by tools/test; standard library only, since it runs before
anything is installed. Never imports nova_batch_migrate: the lab serves the project, it is no part
of it.
"""
