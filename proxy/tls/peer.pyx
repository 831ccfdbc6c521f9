"""Who the other side of a TLS connection is, and why a handshake failed. Raises nothing itself: failures are values
to raise."""
from proxy.tls cimport openssl
from proxy.tls.svid cimport cause as cause_of, verify_peer, words


class TLSFailure(ConnectionError):
    """A handshake that failed. `cause` is one of a closed set, fit for a metric label; the message has the detail."""

    def __init__(self, cause, detail):
        super().__init__(f"{cause}: {detail}")
        self.cause = cause


cdef void expect_peer(openssl.SSL* ssl, str server_name, str alpn):
    """The client's side: whoever answers must prove `server_name`; `alpn` states the protocol, None states none."""
    cdef bytes name = server_name.encode()
    cdef bytes protocols
    openssl.SSL_set_tlsext_host_name(ssl, name)
    openssl.SSL_set_hostflags(
        ssl, openssl.X509_CHECK_FLAG_NO_WILDCARDS | openssl.X509_CHECK_FLAG_NEVER_CHECK_SUBJECT
    )
    openssl.SSL_set1_host(ssl, name)
    if alpn is not None:
        protocols = bytes([len(alpn)]) + alpn.encode()
        openssl.SSL_set_alpn_protos(ssl, <const unsigned char*><const char*>protocols, <unsigned int>len(protocols))
    openssl.SSL_set_connect_state(ssl)


cdef void expect_client(openssl.SSL* ssl, bint require_certificate):
    """The server's side: a client without a certificate gets no further where one is required."""
    if require_certificate:
        openssl.SSL_set_verify(ssl, openssl.SSL_VERIFY_PEER | openssl.SSL_VERIFY_FAIL_IF_NO_PEER_CERT, verify_peer)
    openssl.SSL_set_accept_state(ssl)


cdef str selected_alpn(openssl.SSL* ssl):
    """The protocol that was agreed on: letters of the peer's choice after `tulle/`. None if there is none."""
    cdef const unsigned char* data
    cdef unsigned int size
    openssl.SSL_get0_alpn_selected(ssl, &data, &size)
    return (<const char*>data)[:size].decode("ascii", "replace") if size else None


cdef str certificate_name(openssl.SSL* ssl):
    """First dNSName of the peer's certificate: a mesh leaf has exactly one. None without a certificate."""
    cdef openssl.X509* cert = openssl.SSL_get1_peer_certificate(ssl)
    cdef openssl.GENERAL_NAMES* names
    cdef openssl.GENERAL_NAME* entry
    cdef int i
    found = None
    if cert == NULL:
        return None
    names = <openssl.GENERAL_NAMES*>openssl.X509_get_ext_d2i(cert, openssl.NID_subject_alt_name, NULL, NULL)
    if names != NULL:
        for i in range(openssl.sk_GENERAL_NAME_num(names)):
            entry = openssl.sk_GENERAL_NAME_value(names, i)
            if entry.type == openssl.GEN_DNS:
                found = (<const char*>openssl.ASN1_STRING_get0_data(entry.d.dNSName))[
                    :openssl.ASN1_STRING_length(entry.d.dNSName)
                ].decode("ascii", "replace")
                break
        openssl.GENERAL_NAMES_free(names)
    openssl.X509_free(cert)
    return found


cdef object tls_failure(openssl.SSL* ssl, object expected):
    """Name what went wrong from libssl's error queue and verification result."""
    cdef unsigned long code = openssl.ERR_peek_last_error()
    cdef const char* text = openssl.ERR_reason_error_string(code)
    cdef long verified = openssl.SSL_get_verify_result(ssl)
    cdef str detail = text.decode() if text != NULL else "connection closed"
    openssl.ERR_clear_error()
    if verified == openssl.X509_V_ERR_HOSTNAME_MISMATCH:
        return TLSFailure(cause_of(verified), f"the peer did not prove {expected}")
    if verified != openssl.X509_V_OK:
        return TLSFailure(cause_of(verified), words(verified))
    if code and openssl.ERR_GET_REASON(code) == openssl.SSL_R_EXCESSIVE_MESSAGE_SIZE:
        return TLSFailure("certificate_too_large", "the peer's certificates are longer than any of the mesh's")
    if code and openssl.ERR_GET_REASON(code) == openssl.SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return TLSFailure("certificate_missing", "the client sent no certificate")
    if code == 0 or openssl.ERR_GET_REASON(code) == openssl.SSL_R_UNEXPECTED_EOF_WHILE_READING:
        return TLSFailure("closed", "the peer went away without close_notify")
    if "alert" in detail:
        return TLSFailure("refused_by_peer", detail)
    return TLSFailure("protocol_error", detail)
