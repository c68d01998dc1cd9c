"""The plug-in of python-openstackclient."""
