"""JSON schemas of bodies and queries, one module per resource of the API.

``description`` completes the sentence "Give ..." of the error message for its field.
"""
