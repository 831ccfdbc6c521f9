"""TLS contexts on libssl: TLS 1.3 only, no tickets, certificates and keys from memory. No sockets here.

The suites and their order are Linkerd's; X25519MLKEM768 is offered first where the linked OpenSSL has it (>= 3.5).
"""
from proxy.tls cimport openssl
from proxy.tls.svid cimport objection, verify_peer, words

GROUPS = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")
SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

cdef enum:
    # Three full records of ciphertext per read. Held only while a record is incomplete; below 64 KiB, where giving
    # memory back begins to cost a system call.
    READ_BUFFER = 3 * (16384 + 22)
    # At least 112 bits: no RSA below 2048, no SHA-1, whatever the system's default is.
    SECURITY_LEVEL = 2
    # Certificates between leaf and anchor: what identity takes of an issuer. What comes beyond costs a peer its
    # handshake, not us the checking of signatures.
    MAX_DEPTH = 8
    # Bytes of a peer's chain that are read at all; ours have under 2 KB, RSA ones of that depth under 20.
    MAX_CHAIN_BYTES = 32768

ALPN_HTTP1 = "tulle/http1"
ALPN_HTTP2 = "tulle/h2"
ALPN_OPAQUE = "tulle/opaque"
ALPN_PREFIX = b"tulle/"
"""Between our proxies the client states the protocol in ALPN, so that the server side detects nothing a second time."""


def opaque_alpn(int port):
    """What states "not HTTP, for the application at that port"."""
    return f"{ALPN_OPAQUE}/{port}"


def opaque_port(str alpn not None):
    """The port that a protocol of that form names; 0 if it names none. The peer chose these letters."""
    number = alpn.removeprefix(f"{ALPN_OPAQUE}/")
    if number == alpn or not number.isascii() or not number.isdigit() or len(number) > 5:
        return 0
    return int(number) if int(number) < 65536 else 0


class TLSConfigError(ValueError):
    """Certificate, key or bundle that cannot be used; the message says which and why."""


cdef str last_error():
    cdef unsigned long code = openssl.ERR_peek_last_error()
    cdef const char* text = openssl.ERR_reason_error_string(code)
    openssl.ERR_clear_error()
    return text.decode() if text != NULL else "unknown error"


cdef int select_alpn(openssl.SSL* ssl, const unsigned char** out, unsigned char* outlen, const unsigned char* offered,
                     unsigned int n, void* arg) noexcept nogil:
    """Accept the first `tulle/` protocol that is offered; anyone else gets no ALPN and is detected by content."""
    cdef unsigned int at = 0
    cdef unsigned int length
    while at < n:
        length = offered[at]
        if at + 1 + length <= n and length > 6 and offered[at + 1] == 116 and offered[at + 6] == 47:
            out[0] = offered + at + 1
            outlen[0] = <unsigned char>length
            return openssl.SSL_TLSEXT_ERR_OK
        at += 1 + length
    return openssl.SSL_TLSEXT_ERR_NOACK


cdef class TLSContext:
    """One SSL_CTX.

    chain_der: leaf first, then intermediates (DER). key_der: PKCS#8 (DER). bundle_pem: the trust anchors (PEM).
    Raises TLSConfigError; never logs or keeps the key outside libcrypto.
    """

    def __cinit__(self, list chain_der, bytes key_der, bytes bundle_pem, bint is_server):
        self.is_server = is_server
        self.ctx = openssl.SSL_CTX_new(openssl.TLS_server_method() if is_server else openssl.TLS_client_method())
        if self.ctx == NULL:
            raise MemoryError("SSL_CTX_new")
        openssl.SSL_CTX_set_min_proto_version(self.ctx, openssl.TLS1_3_VERSION)
        openssl.SSL_CTX_set_options(self.ctx, openssl.SSL_OP_NO_TICKET | openssl.SSL_OP_NO_RENEGOTIATION)
        openssl.SSL_CTX_set_num_tickets(self.ctx, 0)
        openssl.SSL_CTX_set_session_cache_mode(self.ctx, openssl.SSL_SESS_CACHE_OFF)
        openssl.SSL_CTX_set_mode(
            self.ctx, openssl.SSL_MODE_RELEASE_BUFFERS | openssl.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
        )
        openssl.SSL_CTX_set_read_ahead(self.ctx, 1)
        openssl.SSL_CTX_set_default_read_buffer_len(self.ctx, READ_BUFFER)
        if openssl.SSL_CTX_set_ciphersuites(self.ctx, <bytes>SUITES) != 1:
            raise TLSConfigError(f"cipher suites: {last_error()}")
        for groups in GROUPS:
            if openssl.SSL_CTX_set1_groups_list(self.ctx, <bytes>groups) == 1:
                break
        openssl.ERR_clear_error()
        openssl.SSL_CTX_set_security_level(self.ctx, SECURITY_LEVEL)
        openssl.SSL_CTX_set_verify_depth(self.ctx, MAX_DEPTH)
        openssl.SSL_CTX_set_max_cert_list(self.ctx, MAX_CHAIN_BYTES)
        if is_server:
            openssl.SSL_CTX_set_alpn_select_cb(self.ctx, select_alpn, NULL)
        openssl.SSL_CTX_set_verify(self.ctx, openssl.SSL_VERIFY_PEER, verify_peer)
        self.load_bundle(bundle_pem)
        if chain_der:
            self.load_chain(chain_der, key_der)

    cdef void load_bundle(self, bytes pem):
        cdef openssl.BIO* bio = openssl.BIO_new_mem_buf(<const char*>pem, <int>len(pem))
        cdef openssl.X509_STORE* store = openssl.SSL_CTX_get_cert_store(self.ctx)
        cdef openssl.X509* anchor
        cdef int count = 0
        while True:
            anchor = openssl.PEM_read_bio_X509(bio, NULL, NULL, NULL)
            if anchor == NULL:
                break
            openssl.X509_STORE_add_cert(store, anchor)
            openssl.X509_free(anchor)
            count += 1
        openssl.BIO_free(bio)
        openssl.ERR_clear_error()
        # An anchor need not be a root: a mesh may trust one CA of a company, and not all that its root has signed.
        openssl.X509_STORE_set_flags(store, openssl.X509_V_FLAG_PARTIAL_CHAIN)
        if count == 0:
            raise TLSConfigError("the trust bundle holds no certificate in PEM form")

    cdef void load_chain(self, list chain_der, bytes key_der):
        cdef const unsigned char* at
        cdef openssl.X509* cert
        cdef openssl.EVP_PKEY* key
        cdef bytes der
        cdef int position = 0
        cdef long ok
        for item in chain_der:
            der = <bytes>item
            at = <const unsigned char*><const char*>der
            cert = openssl.d2i_X509(NULL, &at, <long>len(der))
            if cert == NULL:
                raise TLSConfigError(f"certificate {position} of the chain: {last_error()}")
            if position == 0:
                ok = openssl.SSL_CTX_use_certificate(self.ctx, cert)
            else:
                ok = openssl.SSL_CTX_add1_chain_cert(self.ctx, cert)
            openssl.X509_free(cert)
            if ok != 1:
                raise TLSConfigError(f"certificate {position} of the chain: {last_error()}")
            position += 1
        at = <const unsigned char*><const char*>key_der
        key = openssl.d2i_AutoPrivateKey(NULL, &at, <long>len(key_der))
        if key == NULL:
            raise TLSConfigError("the private key is not DER that OpenSSL can read")
        ok = openssl.SSL_CTX_use_PrivateKey(self.ctx, key)
        openssl.EVP_PKEY_free(key)
        if ok != 1 or openssl.SSL_CTX_check_private_key(self.ctx) != 1:
            raise TLSConfigError(f"the private key does not fit the leaf certificate: {last_error()}")

    def __dealloc__(self):
        if self.ctx != NULL:
            openssl.SSL_CTX_free(self.ctx)

    def verify_own(self, str identity):
        """Raise TLSConfigError unless peers will accept the loaded leaf as `identity`: chain, dates, key usage and
        name."""
        cdef openssl.X509* leaf = openssl.SSL_CTX_get0_certificate(self.ctx)
        cdef openssl.stack_st_X509* chain = NULL
        cdef openssl.X509_STORE_CTX* check = openssl.X509_STORE_CTX_new()
        cdef int error = 0
        cdef bytes name = identity.encode()
        openssl.SSL_CTX_get0_chain_certs(self.ctx, &chain)
        try:
            if leaf == NULL or check == NULL or openssl.X509_STORE_CTX_init(
                check, openssl.SSL_CTX_get_cert_store(self.ctx), leaf, chain
            ) != 1:
                raise TLSConfigError(f"the certificate cannot be checked: {last_error()}")
            openssl.X509_STORE_CTX_set_purpose(
                check, openssl.X509_PURPOSE_SSL_SERVER if self.is_server else openssl.X509_PURPOSE_SSL_CLIENT
            )
            if openssl.X509_verify_cert(check) != 1:
                error = openssl.X509_STORE_CTX_get_error(check)
                raise TLSConfigError(f"peers would refuse the certificate: {words(error)}")
            error = objection(leaf)
            if error != 0:
                raise TLSConfigError(f"peers would refuse the certificate: {words(error)}")
            if openssl.X509_check_host(leaf, name, len(name), openssl.X509_CHECK_FLAG_NO_WILDCARDS, NULL) != 1:
                raise TLSConfigError(f"the certificate is not for {identity}")
        finally:
            openssl.X509_STORE_CTX_free(check)
            openssl.ERR_clear_error()


def offered_groups() -> bytes:
    """The groups of key exchange that every context offers: the best list that the linked OpenSSL takes."""
    cdef openssl.SSL_CTX* ctx = openssl.SSL_CTX_new(openssl.TLS_client_method())
    try:
        for groups in GROUPS:
            if openssl.SSL_CTX_set1_groups_list(ctx, <bytes>groups) == 1:
                return groups
        return b""
    finally:
        openssl.SSL_CTX_free(ctx)
        openssl.ERR_clear_error()


def sha256(bytes data not None) -> bytes:
    """The digest of `data` (32 bytes). By libcrypto, which is there: `hashlib` would bring a part of it once more."""
    cdef unsigned char digest[openssl.SHA256_DIGEST_LENGTH]
    openssl.SHA256(<const unsigned char*><const char*>data, len(data), digest)
    return <bytes>digest[:openssl.SHA256_DIGEST_LENGTH]


cdef class TLSContexts:
    """What the listeners and dialers of one proxy use; empty until the first certificate arrives."""

    def __init__(self, str identity not None):
        self.identity = identity

    def load(self, list chain_der, bytes key_der, bytes bundle_pem):
        """Replace both contexts. Raises TLSConfigError and leaves the old ones in place."""
        server = TLSContext(chain_der, key_der, bundle_pem, True)
        client = TLSContext(chain_der, key_der, bundle_pem, False)
        server.verify_own(self.identity)
        client.verify_own(self.identity)
        self.server = server
        self.client = client
        self.generation += 1

    def anonymous_client(self, bytes bundle_pem) -> TLSContext:
        """A client context with no certificate of its own: for the first Certify call, before there is one."""
        return TLSContext([], b"", bundle_pem, False)
