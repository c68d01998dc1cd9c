import setuptools

# Optional: where there is no compiler relay and planning run the same loops in Python (reference.py
# of each), and the agent hashes pages one by one (agent/fingerprint.py). Planning's results are the
# same to the last bit, so no two operations may be contracted to one.
SPEED = [setuptools.Extension(f"nova_batch_migrate.{part}._speed", optional=True,
                              sources=[f"nova_batch_migrate/{part}/_speed.c"],
                              depends=["nova_batch_migrate/xxh3.h"],
                              extra_compile_args=["-O3", "-ffp-contract=off"])
         for part in ("agent", "planning", "relay")]

setuptools.setup(setup_requires=["pbr>=6.0.0"], pbr=True, ext_modules=SPEED)
