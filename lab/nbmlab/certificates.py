"""The lab's own certificate authority, and a certificate a host for the relays.

Called by project. Made once; the key of the authority stays in the state directory.
"""
import pathlib
import tempfile

from nbmlab import shell

DAYS = 3650


def authority(directory: pathlib.Path) -> pathlib.Path:
    """Return the certificate of the authority in a directory; made when it is missing."""
    certificate, key = directory / "ca.pem", directory / "ca.key"
    if not certificate.exists():
        directory.mkdir(parents=True, exist_ok=True)
        _key(key)
        shell.run("openssl", "req", "-x509", "-new", "-key", key, "-days", DAYS, "-subj",
                  "/CN=lab relays", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                  "-out", certificate)
    return certificate


def certificate(directory: pathlib.Path, name: str, dns_name: str | None = None
                ) -> tuple[pathlib.Path, pathlib.Path]:
    """Return certificate and key of a host, made when they are missing.

    ``dns_name`` is what the certificate says, the host's own name when not given.
    """
    own, key = directory / f"{name}.pem", directory / f"{name}.key"
    if not own.exists():
        authority(directory)
        _key(key)
        with tempfile.TemporaryDirectory() as scratch:
            request, extensions = pathlib.Path(scratch, "csr"), pathlib.Path(scratch, "ext")
            extensions.write_text(f"subjectAltName=DNS:{dns_name or name}\n"
                                  "keyUsage=critical,digitalSignature\n"
                                  "extendedKeyUsage=serverAuth,clientAuth\n")
            shell.run("openssl", "req", "-new", "-key", key, "-subj", f"/CN={name}",
                      "-out", request)
            shell.run("openssl", "x509", "-req", "-in", request, "-days", DAYS, "-CA",
                      directory / "ca.pem", "-CAkey", directory / "ca.key", "-CAcreateserial",
                      "-extfile", extensions, "-out", own)
    return own, key


def _key(path: pathlib.Path) -> None:
    shell.run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)
    path.chmod(0o600)
