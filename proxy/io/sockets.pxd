# Calls of a socket as transports want them: made once more when a signal came between, and the error that waits.
from proxy.io cimport posix


cdef inline void prepare(int fd) noexcept nogil:
    """Send at once, and find out whether the other host is there. What is accepted has these from its listener."""
    cdef int on = 1
    posix.setsockopt(fd, posix.IPPROTO_TCP, posix.TCP_NODELAY, &on, sizeof(on))
    posix.setsockopt(fd, posix.SOL_SOCKET, posix.SO_KEEPALIVE, &on, sizeof(on))


cdef inline ssize_t receive(int fd, char* into, size_t size, int flags) noexcept nogil:
    cdef ssize_t count
    while True:
        count = posix.recv(fd, into, size, flags)
        if count >= 0 or posix.errno != posix.EINTR:
            return count


cdef inline ssize_t send(int fd, const char* data, size_t size, int flags) noexcept nogil:
    cdef ssize_t count
    while True:
        count = posix.send(fd, data, size, flags | posix.MSG_NOSIGNAL)
        if count >= 0 or posix.errno != posix.EINTR:
            return count


cdef inline int pending_error(int fd) noexcept nogil:
    """What has gone wrong with it, said once; 0 for nothing."""
    cdef int code = 0
    cdef posix.socklen_t size = sizeof(code)
    posix.getsockopt(fd, posix.SOL_SOCKET, posix.SO_ERROR, &code, &size)
    return code


cdef inline int unacknowledged(int fd) noexcept nogil:
    """Bytes that were sent and are not yet with the peer's host."""
    cdef int count = 0
    posix.ioctl(fd, posix.SIOCOUTQ, &count)
    return count


cdef inline void reset_on_close(int fd) noexcept nogil:
    """What is queued is dropped by close(2), and the peer sees a reset."""
    cdef int linger[2]
    linger[0] = 1
    linger[1] = 0
    posix.setsockopt(fd, posix.SOL_SOCKET, posix.SO_LINGER, linger, sizeof(linger))
