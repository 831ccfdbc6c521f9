# What libssl knows of the peer.
from proxy.tls cimport openssl

cdef void expect_peer(openssl.SSL* ssl, str server_name, str alpn)
cdef void expect_client(openssl.SSL* ssl, bint require_certificate)
cdef str selected_alpn(openssl.SSL* ssl)
cdef str certificate_name(openssl.SSL* ssl)
cdef object tls_failure(openssl.SSL* ssl, object expected)
