"""One module per benchmark, found by its name; what each must define: see nbmbench.contract.

Read by nbmbench.cli. A module here must be importable without the benchmark-only packages.
"""
