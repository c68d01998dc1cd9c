"""Sphinx's configuration for the API reference; needs os-api-ref and openstackdocstheme."""

project = "nova-batch-migrate API reference"
copyright = "the nova-batch-migrate developers"
extensions = ["openstackdocstheme", "os_api_ref"]
html_theme = "openstackdocs"
master_doc = "index"
