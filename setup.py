import setuptools

# Optional: where there is no compiler the relay runs the same loops in Python (relay/reference.py).
SPEED = setuptools.Extension("nova_batch_migrate.relay._speed", optional=True,
                             sources=["nova_batch_migrate/relay/_speed.c"],
                             extra_compile_args=["-O3"])

setuptools.setup(setup_requires=["pbr>=6.0.0"], pbr=True, ext_modules=[SPEED])
