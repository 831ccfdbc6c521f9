# What libssl knows of the peer.
from proxy.tls cimport openssl

cdef str selected_alpn(openssl.SSL* ssl)
cdef str certificate_name(openssl.SSL* ssl)
cdef object tls_failure(openssl.SSL* ssl, object expected)
