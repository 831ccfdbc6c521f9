# A loaded identity: one SSL_CTX for each role, replaced as a whole when the certificate or the bundle changes.
from proxy.tls cimport openssl


cdef class TLSContext:
    cdef openssl.SSL_CTX* ctx
    cdef void load_bundle(self, bytes pem)
    cdef void load_chain(self, list chain_der, bytes key_der)
    cdef readonly bint is_server


cdef class TLSContexts:
    """The live pair. Connections take the current one when they start; those running keep theirs."""
    cdef public TLSContext server
    cdef public TLSContext client
    cdef readonly int generation
    cdef readonly str identity
