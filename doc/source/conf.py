"""Sphinx's configuration for this project's manual."""

project = "nova-batch-migrate"
copyright = "the nova-batch-migrate developers"
master_doc = "index"
extensions = []
html_theme = "alabaster"
nitpicky = True
