"""What tests give to clients of plain HTTP: trust in nobody; to read what the system trusts takes each one 30 ms."""

import ssl

NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
