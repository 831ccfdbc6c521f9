"""What a workload's certificate must be beyond a good chain: the rules of SPIFFE X509-SVID (sections 2, 4 and 5), and
one identity, written in two ways that agree. No sockets; refusals are values.

It runs inside the handshake, as the last step of RFC 5280's path validation, so that a peer hears an alert instead of
finding its connection closed. Identity signs nothing else; but with a company's CA as anchor others sign too.
"""
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy

from proxy.tls cimport openssl

cdef enum:
    MAX_SPIFFE_ID = 2048      # SPIFFE-ID section 2.3
    MAX_TRUST_DOMAIN = 255    # SPIFFE-ID section 2.1
    MAX_DNS_NAME = 253        # RFC 1035 section 2.3.4
    MOST_DAYS = 3650          # a longer life is as good as no end, and would not fit a count of nanoseconds

cdef bytes SCHEME = b"spiffe://"
cdef bytes ACCOUNT = b".serviceaccount.identity."
cdef bytes CURVE = b"prime256v1"

# A server ends what a certificate was good for this much later than a client, which then has left by itself. Together
# they stay below the 20 s by which clocks may differ.
cdef int64_t SERVER_GRACE = 10

WORDS = {
    LEAF_IS_AUTHORITY: "a workload's certificate may not be a CA",
    LEAF_KEY_USAGE: "keyUsage must be critical, with digitalSignature and without keyCertSign and cRLSign",
    LEAF_EXTENDED_USAGE: "extendedKeyUsage must name both serverAuth and clientAuth",
    LEAF_KEY: "the key is not ECDSA on P-256, the only kind that identity certifies",
    LEAF_NAMES: "a workload's certificate has one DNS name, one URI and no other name",
    LEAF_URIS: "a workload's certificate has exactly one URI",
    LEAF_SPIFFE_ID: "the URI is not a SPIFFE ID of a workload",
    LEAF_NAMES_DIFFER: "DNS name and SPIFFE ID are not of one workload",
    LEAF_SAN_NOT_CRITICAL: "with an empty subject, subjectAltName must be critical",
}

CHAIN = frozenset({
    openssl.X509_V_ERR_CERT_CHAIN_TOO_LONG, openssl.X509_V_ERR_PATH_LENGTH_EXCEEDED,
    openssl.X509_V_ERR_KEYUSAGE_NO_CERTSIGN, openssl.X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION,
    openssl.X509_V_ERR_INVALID_EXTENSION, openssl.X509_V_ERR_PERMITTED_VIOLATION,
    openssl.X509_V_ERR_EXCLUDED_VIOLATION, openssl.X509_V_ERR_SUBTREE_MINMAX,
    openssl.X509_V_ERR_UNSUPPORTED_CONSTRAINT_TYPE, openssl.X509_V_ERR_UNSUPPORTED_CONSTRAINT_SYNTAX,
    openssl.X509_V_ERR_UNSUPPORTED_NAME_SYNTAX, openssl.X509_V_ERR_INVALID_CA, openssl.X509_V_ERR_INVALID_NON_CA,
})
USAGE = frozenset({
    openssl.X509_V_ERR_INVALID_PURPOSE, openssl.X509_V_ERR_KEYUSAGE_NO_DIGITAL_SIGNATURE, LEAF_IS_AUTHORITY,
    LEAF_KEY_USAGE, LEAF_EXTENDED_USAGE,
})
WEAK = frozenset({
    openssl.X509_V_ERR_EE_KEY_TOO_SMALL, openssl.X509_V_ERR_CA_KEY_TOO_SMALL, openssl.X509_V_ERR_CA_MD_TOO_WEAK,
    LEAF_KEY,
})


cdef int verify_peer(int preverified, openssl.X509_STORE_CTX* check) noexcept:
    """libssl's callback for each certificate of a chain, the leaf last and once everything else is known to be good."""
    cdef Objection found
    if preverified == 1 and openssl.X509_STORE_CTX_get_error_depth(check) == 0:
        found = objection(openssl.X509_STORE_CTX_get_current_cert(check))
        if found != 0:
            openssl.X509_STORE_CTX_set_error(check, <int>found)
            return 0
    return preverified


cdef Objection objection(openssl.X509* leaf):
    """What is wrong with a leaf; 0 for nothing."""
    cdef uint32_t usage = openssl.X509_get_key_usage(leaf)
    cdef uint32_t extended = openssl.X509_get_extended_key_usage(leaf)
    if openssl.X509_get_extension_flags(leaf) & openssl.EXFLAG_CA:
        return LEAF_IS_AUTHORITY
    if not is_critical(leaf, openssl.NID_key_usage) or not usage & openssl.KU_DIGITAL_SIGNATURE or \
            usage & (openssl.KU_KEY_CERT_SIGN | openssl.KU_CRL_SIGN):
        return LEAF_KEY_USAGE
    if not openssl.X509_get_extension_flags(leaf) & openssl.EXFLAG_XKUSAGE or \
            not extended & openssl.XKU_SSL_SERVER or not extended & openssl.XKU_SSL_CLIENT:
        return LEAF_EXTENDED_USAGE
    if not is_of_our_curve(openssl.X509_get0_pubkey(leaf)):
        return LEAF_KEY
    if openssl.X509_NAME_entry_count(openssl.X509_get_subject_name(leaf)) == 0 and \
            not is_critical(leaf, openssl.NID_subject_alt_name):
        return LEAF_SAN_NOT_CRITICAL
    return name_objection(leaf)


cdef Objection name_objection(openssl.X509* leaf):
    cdef openssl.GENERAL_NAMES* names = <openssl.GENERAL_NAMES*>openssl.X509_get_ext_d2i(
        leaf, openssl.NID_subject_alt_name, NULL, NULL
    )
    cdef openssl.GENERAL_NAME* entry
    cdef openssl.ASN1_STRING* dns = NULL
    cdef openssl.ASN1_STRING* uri = NULL
    cdef int i
    cdef int others = 0
    cdef int uris = 0
    cdef Objection found = LEAF_NAMES
    if names == NULL:
        return LEAF_NAMES
    for i in range(openssl.sk_GENERAL_NAME_num(names)):
        entry = openssl.sk_GENERAL_NAME_value(names, i)
        if entry.type == openssl.GEN_URI:
            uris += 1
            uri = entry.d.uniformResourceIdentifier
        elif entry.type == openssl.GEN_DNS and dns == NULL:
            dns = entry.d.dNSName
        else:
            others += 1
    if uris > 1:
        found = LEAF_URIS
    elif uri != NULL and dns != NULL and others == 0:
        found = pair_objection(
            <const char*>openssl.ASN1_STRING_get0_data(dns), openssl.ASN1_STRING_length(dns),
            <const char*>openssl.ASN1_STRING_get0_data(uri), openssl.ASN1_STRING_length(uri),
        )
    openssl.GENERAL_NAMES_free(names)
    return found


def names_agree(bytes dns not None, bytes uri not None):
    """Whether a DNS name and a SPIFFE ID are those of one workload, for tests."""
    return pair_objection(<const char*>dns, <int>len(dns), <const char*>uri, <int>len(uri)) == 0


cdef Objection pair_objection(const char* dns, int dns_size, const char* uri, int uri_size):
    """`<account>.<namespace>.serviceaccount.identity.<mesh>.<domain>` beside
    `spiffe://<domain>/ns/<namespace>/sa/<account>`, byte for byte: what differs is somebody else, and what is not
    written in the one way that there is cannot agree."""
    cdef char wanted[MAX_SPIFFE_ID]
    cdef const char* mark
    cdef const char* end = dns + dns_size
    cdef const char* dot
    cdef const char* domain
    cdef int size
    if not is_spiffe_id(uri, uri_size):
        return LEAF_SPIFFE_ID
    if dns_size == 0 or dns_size > MAX_DNS_NAME or not all_of(dns, dns_size, False):
        return LEAF_NAMES
    mark = find(dns, dns_size, ACCOUNT, <int>len(ACCOUNT))
    if mark == NULL:
        return LEAF_NAMES_DIFFER
    domain = <const char*>memchr(mark + len(ACCOUNT), 46, end - (mark + len(ACCOUNT)))
    dot = mark - 1
    while dot > dns and dot[0] != 46:
        dot -= 1
    if domain == NULL or dot <= dns or dot == mark - 1:
        return LEAF_NAMES_DIFFER
    domain += 1
    size = put(wanted, 0, SCHEME, <int>len(SCHEME))
    size = put(wanted, size, domain, <int>(end - domain))
    size = put(wanted, size, b"/ns/", 4)
    size = put(wanted, size, dot + 1, <int>(mark - dot - 1))
    size = put(wanted, size, b"/sa/", 4)
    size = put(wanted, size, dns, <int>(dot - dns))
    return <Objection>0 if size == uri_size and memcmp(wanted, uri, size) == 0 else LEAF_NAMES_DIFFER


cdef bint is_spiffe_id(const char* uri, int size):
    """SPIFFE-ID section 2: a trust domain of few letters, and a path that is neither empty nor relative."""
    cdef int at = <int>len(SCHEME)
    cdef int start = at
    if size > MAX_SPIFFE_ID or size <= start or memcmp(uri, <const char*>SCHEME, start) != 0:
        return False
    while at < size and uri[at] != 47:
        at += 1
    if at == start or at - start > MAX_TRUST_DOMAIN or not all_of(uri + start, at - start, False) or at == size:
        return False
    while at < size:
        start = at + 1
        at = start
        while at < size and uri[at] != 47:
            at += 1
        if at == start or not all_of(uri + start, at - start, True) or \
                (uri[start] == 46 and (at == start + 1 or (at == start + 2 and uri[start + 1] == 46))):
            return False
    return True


cdef bint all_of(const char* text, int size, bint capitals):
    """Whether a name consists of letters (capitals only in paths), digits, dots, dashes and underscores."""
    cdef int i
    cdef char each
    for i in range(size):
        each = text[i]
        if not (97 <= each <= 122 or 48 <= each <= 57 or each == 45 or each == 46 or each == 95 or
                (capitals and 65 <= each <= 90)):
            return False
    return True


cdef const char* find(const char* text, int size, const char* wanted, int wanted_size):
    cdef int i
    for i in range(size - wanted_size + 1):
        if memcmp(text + i, wanted, wanted_size) == 0:
            return text + i
    return NULL


cdef int put(char* into, int at, const char* text, int size):
    memcpy(into + at, text, size)
    return at + size


cdef bint is_critical(openssl.X509* leaf, int nid):
    cdef int at = openssl.X509_get_ext_by_NID(leaf, nid, -1)
    return at >= 0 and openssl.X509_EXTENSION_get_critical(openssl.X509_get_ext(leaf, at)) == 1


cdef bint is_of_our_curve(openssl.EVP_PKEY* key):
    cdef char name[32]
    cdef size_t size = 0
    return key != NULL and openssl.EVP_PKEY_get_group_name(key, name, sizeof(name), &size) == 1 and \
        size == <size_t>len(CURVE) and memcmp(name, <const char*>CURVE, size) == 0


cdef str words(long verified):
    """A failed verification in words."""
    if FIRST_OBJECTION <= verified < AFTER_LAST_OBJECTION:
        return WORDS[verified]
    return openssl.X509_verify_cert_error_string(verified).decode()


cdef str cause(long verified):
    """The same as a metric names it."""
    if verified == openssl.X509_V_ERR_HOSTNAME_MISMATCH:
        return "identity_mismatch"
    if verified == openssl.X509_V_ERR_CERT_HAS_EXPIRED:
        return "certificate_expired"
    if verified == openssl.X509_V_ERR_CERT_NOT_YET_VALID:
        return "certificate_not_yet_valid"
    if verified in CHAIN:
        return "certificate_chain"
    if verified in USAGE:
        return "certificate_usage"
    if verified in WEAK:
        return "certificate_weak"
    if FIRST_OBJECTION <= verified < AFTER_LAST_OBJECTION:
        return "certificate_names"
    return "certificate_untrusted"


cdef int64_t seconds_left(openssl.SSL* ssl):
    """Until what a connection was let in for ends: the first of the two leaves; 0 when neither side has shown one."""
    cdef int64_t own = left(openssl.SSL_get_certificate(ssl))
    cdef int64_t theirs = left(openssl.SSL_get0_peer_certificate(ssl))
    cdef int64_t first = own + theirs if own == 0 or theirs == 0 else min(own, theirs)
    return first + SERVER_GRACE if first and openssl.SSL_is_server(ssl) else first


cdef int64_t left(openssl.X509* certificate):
    cdef int days = 0
    cdef int seconds = 0
    if certificate == NULL or openssl.ASN1_TIME_diff(
        &days, &seconds, NULL, openssl.X509_get0_notAfter(certificate)
    ) != 1:
        return 0
    return max(1, min(days, MOST_DAYS) * <int64_t>86400 + seconds)
