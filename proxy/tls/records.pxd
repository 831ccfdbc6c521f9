# Plaintext out of the records that libssl has.
from proxy.io cimport posix
from proxy.tls cimport openssl

cdef enum:
    TLS_FAILED = -2     # libssl's error queue says why
    SOCKET_FAILED = -3  # errno says why


cdef inline Py_ssize_t receive(openssl.SSL* ssl, char* into, Py_ssize_t size) noexcept:
    """As many records as fit: their bytes, 0 after close_notify, -1 when there is nothing for now, or one of the
    failures."""
    cdef Py_ssize_t total = 0
    cdef int count, error
    while total < size:
        openssl.ERR_clear_error()
        count = openssl.SSL_read(ssl, into + total, <int>(size - total))
        if count > 0:
            total += count
            continue
        if total > 0:
            return total
        error = openssl.SSL_get_error(ssl, count)
        if error == openssl.SSL_ERROR_WANT_READ or error == openssl.SSL_ERROR_WANT_WRITE:
            return -1
        if error == openssl.SSL_ERROR_ZERO_RETURN:
            return 0
        return SOCKET_FAILED if error == openssl.SSL_ERROR_SYSCALL and posix.errno != 0 else TLS_FAILED
    return total
