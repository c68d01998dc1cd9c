"""The inner loops, compiled where the extension was built, else in plain Python.

Imported by parser, encoder and decoder; `COMPILED` says which one is in use.
"""
from nova_batch_migrate.relay import reference

try:
    from nova_batch_migrate.relay import _speed as _loops
except ImportError:
    _loops = reference

COMPILED = _loops is not reference
scan_records = _loops.scan_records
note_runs = _loops.note_runs
list_pages = _loops.list_pages
list_recurring = _loops.list_recurring
match_pages = _loops.match_pages
pack_control = _loops.pack_control
apply_block = _loops.apply_block
pump = _loops.pump
