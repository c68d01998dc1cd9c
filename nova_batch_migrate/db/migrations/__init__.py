"""Alembic's directory: env.py is run by db.migration, versions/ holds one module per change."""
