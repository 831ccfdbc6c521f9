# The part of libssl and libcrypto that Tulle uses (OpenSSL >= 3.0). Declarations only.
from libc.stdint cimport uint32_t

cdef extern from "openssl/err.h" nogil:
    unsigned long ERR_get_error()
    unsigned long ERR_peek_last_error()
    void ERR_clear_error()
    const char* ERR_reason_error_string(unsigned long e)
    int ERR_GET_REASON(unsigned long e)

cdef extern from "openssl/bio.h" nogil:
    ctypedef struct BIO
    ctypedef struct BIO_METHOD
    BIO_METHOD* BIO_meth_new(int type, const char* name)
    BIO* BIO_new(const BIO_METHOD* m)
    BIO* BIO_new_mem_buf(const void* buf, int n)
    int BIO_free(BIO* b)
    void BIO_set_data(BIO* b, void* ptr)
    void* BIO_get_data(BIO* b)
    void BIO_set_init(BIO* b, int init)
    void BIO_set_retry_read(BIO* b)
    void BIO_clear_retry_flags(BIO* b)
    int BIO_CTRL_FLUSH
    int BIO_TYPE_SOURCE_SINK
    int BIO_get_new_index()

cdef extern from "openssl/bio.h":
    # The callbacks run inside SSL_read and SSL_write, which are called with the GIL held.
    int BIO_meth_set_read(BIO_METHOD* m, int (*read)(BIO*, char*, int) noexcept)
    int BIO_meth_set_write(BIO_METHOD* m, int (*write)(BIO*, const char*, int) noexcept)
    int BIO_meth_set_ctrl(BIO_METHOD* m, long (*ctrl)(BIO*, int, long, void*) noexcept)

cdef extern from "openssl/asn1.h" nogil:
    ctypedef struct ASN1_TIME
    int ASN1_TIME_diff(int* days, int* seconds, const ASN1_TIME* start, const ASN1_TIME* end)

cdef extern from "openssl/x509.h" nogil:
    ctypedef struct X509
    ctypedef struct EVP_PKEY
    ctypedef struct X509_NAME
    ctypedef struct X509_EXTENSION
    EVP_PKEY* X509_get0_pubkey(const X509* x)
    X509_NAME* X509_get_subject_name(const X509* x)
    int X509_NAME_entry_count(const X509_NAME* n)
    int X509_get_ext_by_NID(const X509* x, int nid, int after)
    X509_EXTENSION* X509_get_ext(const X509* x, int at)
    int X509_EXTENSION_get_critical(const X509_EXTENSION* e)
    const ASN1_TIME* X509_get0_notAfter(const X509* x)
    X509* d2i_X509(X509** a, const unsigned char** p, long n)
    void X509_free(X509* x)
    EVP_PKEY* d2i_AutoPrivateKey(EVP_PKEY** a, const unsigned char** p, long n)
    void EVP_PKEY_free(EVP_PKEY* k)
    const char* X509_verify_cert_error_string(long n)

cdef extern from "openssl/sha.h" nogil:
    enum:
        SHA256_DIGEST_LENGTH
    unsigned char* SHA256(const unsigned char* data, size_t size, unsigned char* digest)

cdef extern from "openssl/evp.h" nogil:
    int EVP_PKEY_get_group_name(const EVP_PKEY* k, char* name, size_t n, size_t* size)

cdef extern from "openssl/pem.h" nogil:
    X509* PEM_read_bio_X509(BIO* b, X509** x, void* cb, void* u)

cdef extern from "openssl/x509v3.h" nogil:
    ctypedef struct ASN1_STRING
    ctypedef struct GENERAL_NAME_d:
        ASN1_STRING* dNSName
        ASN1_STRING* uniformResourceIdentifier
    ctypedef struct GENERAL_NAME:
        int type
        GENERAL_NAME_d d
    ctypedef struct GENERAL_NAMES
    int GEN_DNS
    int GEN_URI
    int NID_subject_alt_name
    int NID_key_usage
    uint32_t EXFLAG_CA
    uint32_t EXFLAG_XKUSAGE
    uint32_t KU_DIGITAL_SIGNATURE
    uint32_t KU_KEY_CERT_SIGN
    uint32_t KU_CRL_SIGN
    uint32_t XKU_SSL_SERVER
    uint32_t XKU_SSL_CLIENT
    uint32_t X509_get_extension_flags(X509* x)
    uint32_t X509_get_key_usage(X509* x)
    uint32_t X509_get_extended_key_usage(X509* x)
    void* X509_get_ext_d2i(const X509* x, int nid, int* crit, int* idx)
    int sk_GENERAL_NAME_num(GENERAL_NAMES* names)
    GENERAL_NAME* sk_GENERAL_NAME_value(GENERAL_NAMES* names, int i)
    void GENERAL_NAMES_free(GENERAL_NAMES* names)
    const unsigned char* ASN1_STRING_get0_data(const ASN1_STRING* s)
    int ASN1_STRING_length(const ASN1_STRING* s)
    unsigned int X509_CHECK_FLAG_NO_WILDCARDS
    unsigned int X509_CHECK_FLAG_NEVER_CHECK_SUBJECT
    long X509_V_OK
    long X509_V_ERR_HOSTNAME_MISMATCH
    long X509_V_ERR_CERT_HAS_EXPIRED
    long X509_V_ERR_CERT_NOT_YET_VALID
    long X509_V_ERR_CERT_CHAIN_TOO_LONG
    long X509_V_ERR_PATH_LENGTH_EXCEEDED
    long X509_V_ERR_KEYUSAGE_NO_CERTSIGN
    long X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION
    long X509_V_ERR_INVALID_EXTENSION
    long X509_V_ERR_PERMITTED_VIOLATION
    long X509_V_ERR_EXCLUDED_VIOLATION
    long X509_V_ERR_SUBTREE_MINMAX
    long X509_V_ERR_UNSUPPORTED_CONSTRAINT_TYPE
    long X509_V_ERR_UNSUPPORTED_CONSTRAINT_SYNTAX
    long X509_V_ERR_UNSUPPORTED_NAME_SYNTAX
    long X509_V_ERR_INVALID_CA
    long X509_V_ERR_INVALID_NON_CA
    long X509_V_ERR_INVALID_PURPOSE
    long X509_V_ERR_KEYUSAGE_NO_DIGITAL_SIGNATURE
    long X509_V_ERR_EE_KEY_TOO_SMALL
    long X509_V_ERR_CA_KEY_TOO_SMALL
    long X509_V_ERR_CA_MD_TOO_WEAK
    ctypedef struct X509_STORE
    int X509_STORE_add_cert(X509_STORE* s, X509* x)
    int X509_STORE_set_flags(X509_STORE* s, unsigned long flags)
    unsigned long X509_V_FLAG_PARTIAL_CHAIN
    ctypedef struct X509_STORE_CTX
    ctypedef struct stack_st_X509 "STACK_OF(X509)":
        pass
    X509_STORE_CTX* X509_STORE_CTX_new()
    void X509_STORE_CTX_free(X509_STORE_CTX* c)
    int X509_STORE_CTX_init(X509_STORE_CTX* c, X509_STORE* s, X509* leaf, stack_st_X509* chain)
    int X509_STORE_CTX_set_purpose(X509_STORE_CTX* c, int purpose)
    int X509_STORE_CTX_get_error(const X509_STORE_CTX* c)
    void X509_STORE_CTX_set_error(X509_STORE_CTX* c, int error)
    int X509_STORE_CTX_get_error_depth(const X509_STORE_CTX* c)
    X509* X509_STORE_CTX_get_current_cert(const X509_STORE_CTX* c)
    int X509_verify_cert(X509_STORE_CTX* c)
    int X509_check_host(X509* x, const char* name, size_t n, unsigned int flags, char** peername)
    int X509_PURPOSE_SSL_CLIENT
    int X509_PURPOSE_SSL_SERVER

cdef extern from "openssl/ssl.h" nogil:
    ctypedef struct SSL
    ctypedef struct SSL_CTX
    ctypedef struct SSL_METHOD
    const SSL_METHOD* TLS_server_method()
    const SSL_METHOD* TLS_client_method()
    SSL_CTX* SSL_CTX_new(const SSL_METHOD* m)
    int SSL_CTX_up_ref(SSL_CTX* c)
    void SSL_CTX_free(SSL_CTX* c)
    int SSL_CTX_set_min_proto_version(SSL_CTX* c, int v)
    unsigned long SSL_CTX_set_options(SSL_CTX* c, unsigned long o)
    long SSL_CTX_set_mode(SSL_CTX* c, long m)
    int SSL_CTX_set_ciphersuites(SSL_CTX* c, const char* s)
    int SSL_CTX_set1_groups_list(SSL_CTX* c, const char* s)
    int SSL_CTX_set_num_tickets(SSL_CTX* c, size_t n)
    long SSL_CTX_set_session_cache_mode(SSL_CTX* c, long m)
    void SSL_CTX_set_read_ahead(SSL_CTX* c, int on)
    void SSL_CTX_set_default_read_buffer_len(SSL_CTX* c, size_t n)
    int SSL_CTX_use_certificate(SSL_CTX* c, X509* x)
    int SSL_CTX_use_PrivateKey(SSL_CTX* c, EVP_PKEY* k)
    int SSL_CTX_check_private_key(SSL_CTX* c)
    long SSL_CTX_add1_chain_cert(SSL_CTX* c, X509* x)
    X509_STORE* SSL_CTX_get_cert_store(SSL_CTX* c)
    X509* SSL_CTX_get0_certificate(const SSL_CTX* c)
    long SSL_CTX_get0_chain_certs(SSL_CTX* c, stack_st_X509** chain)
    void SSL_CTX_set_verify_depth(SSL_CTX* c, int depth)
    void SSL_CTX_set_security_level(SSL_CTX* c, int level)
    long SSL_CTX_set_max_cert_list(SSL_CTX* c, long size)
    int SSL_CTX_set_purpose(SSL_CTX* c, int purpose)
    ctypedef int (*alpn_select_cb)(
        SSL*, const unsigned char**, unsigned char*, const unsigned char*, unsigned int, void*
    ) noexcept
    void SSL_CTX_set_alpn_select_cb(SSL_CTX* c, alpn_select_cb cb, void* arg)
    SSL* SSL_new(SSL_CTX* c)
    void SSL_free(SSL* s)
    void SSL_set_bio(SSL* s, BIO* r, BIO* w)
    void SSL_set_accept_state(SSL* s)
    void SSL_set_connect_state(SSL* s)
    int SSL_do_handshake(SSL* s)
    int SSL_read(SSL* s, void* buf, int n)
    int SSL_write(SSL* s, const void* buf, int n)
    int SSL_shutdown(SSL* s)
    int SSL_get_error(const SSL* s, int ret)
    int SSL_get_shutdown(const SSL* s)
    X509* SSL_get_certificate(const SSL* s)
    X509* SSL_get0_peer_certificate(const SSL* s)
    int SSL_is_server(const SSL* s)
    long SSL_get_verify_result(const SSL* s)
    X509* SSL_get1_peer_certificate(const SSL* s)
    int SSL_set1_host(SSL* s, const char* name)
    void SSL_set_hostflags(SSL* s, unsigned int flags)
    long SSL_set_tlsext_host_name(SSL* s, const char* name)
    int SSL_set_alpn_protos(SSL* s, const unsigned char* protos, unsigned int n)
    void SSL_get0_alpn_selected(const SSL* s, const unsigned char** data, unsigned int* n)
    int TLS1_3_VERSION
    unsigned long SSL_OP_NO_TICKET
    unsigned long SSL_OP_NO_RENEGOTIATION
    long SSL_MODE_RELEASE_BUFFERS
    long SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
    long SSL_SESS_CACHE_OFF
    int SSL_VERIFY_NONE
    int SSL_VERIFY_PEER
    int SSL_VERIFY_FAIL_IF_NO_PEER_CERT
    int SSL_ERROR_NONE
    int SSL_ERROR_SSL
    int SSL_ERROR_WANT_READ
    int SSL_ERROR_WANT_WRITE
    int SSL_ERROR_SYSCALL
    int SSL_ERROR_ZERO_RETURN
    int SSL_RECEIVED_SHUTDOWN
    int SSL_SENT_SHUTDOWN
    int SSL_TLSEXT_ERR_OK
    int SSL_TLSEXT_ERR_NOACK
    int SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE
    int SSL_R_UNEXPECTED_EOF_WHILE_READING
    int SSL_R_EXCESSIVE_MESSAGE_SIZE

cdef extern from "openssl/ssl.h":
    # The callback runs inside SSL_do_handshake and SSL_read, which are called with the GIL held.
    ctypedef int (*verify_callback)(int preverified, X509_STORE_CTX* check) noexcept
    void SSL_CTX_set_verify(SSL_CTX* c, int mode, verify_callback callback)
    void SSL_set_verify(SSL* s, int mode, verify_callback callback)
