"""The project's benchmarks: a shared contract, one module per benchmark in suite/, the QEMU rig.

Started by benchmarks/run. Product code never imports it.
"""
