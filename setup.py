import setuptools

# Optional: where there is no compiler the relay runs the same loops in Python (relay/reference.py),
# and the agent hashes pages one by one (agent/fingerprint.py).
SPEED = [setuptools.Extension(f"nova_batch_migrate.{part}._speed", optional=True,
                              sources=[f"nova_batch_migrate/{part}/_speed.c"],
                              extra_compile_args=["-O3"])
         for part in ("agent", "relay")]

setuptools.setup(setup_requires=["pbr>=6.0.0"], pbr=True, ext_modules=SPEED)
