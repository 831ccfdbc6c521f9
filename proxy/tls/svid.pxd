# What a certificate of a workload must be beyond a good chain (SPIFFE X509-SVID, and the mesh's own names).
from libc.stdint cimport int64_t

from proxy.tls cimport openssl

cdef enum Objection:
    # Values that the verification of a chain never has (OpenSSL's are below 200), so that a failed handshake names its
    # cause by `SSL_get_verify_result` alone.
    FIRST_OBJECTION = 10_000
    LEAF_IS_AUTHORITY = 10_000
    LEAF_KEY_USAGE
    LEAF_EXTENDED_USAGE
    LEAF_KEY
    LEAF_NAMES
    LEAF_URIS
    LEAF_SPIFFE_ID
    LEAF_NAMES_DIFFER
    LEAF_SAN_NOT_CRITICAL
    AFTER_LAST_OBJECTION

cdef int verify_peer(int preverified, openssl.X509_STORE_CTX* check) noexcept
cdef Objection objection(openssl.X509* leaf)
cdef str words(long verified)
cdef str cause(long verified)
cdef int64_t seconds_left(openssl.SSL* ssl)
