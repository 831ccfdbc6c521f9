# The C declarations of proxy.io: sockets, epoll, clocks. Nothing here has logic.
from libc.stdint cimport uint16_t, uint32_t, uint64_t

cdef extern from "errno.h" nogil:
    int errno
    int EAGAIN
    int EINTR
    int EINPROGRESS
    int ECONNRESET
    int ECONNREFUSED
    int ETIMEDOUT
    int EMFILE
    int ENFILE
    int ECONNABORTED
    int ENOTCONN
    int EPIPE

cdef extern from "string.h" nogil:
    char* strerror(int errnum)

cdef extern from "sys/types.h" nogil:
    ctypedef long ssize_t
    ctypedef unsigned int socklen_t

cdef extern from "sys/socket.h" nogil:
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family
    int AF_INET
    int AF_INET6
    int SOCK_STREAM
    int SOCK_NONBLOCK
    int SOCK_CLOEXEC
    int SOL_SOCKET
    int SO_REUSEADDR
    int SO_ERROR
    int SO_KEEPALIVE
    int SO_LINGER
    int MSG_PEEK
    int MSG_NOSIGNAL
    int MSG_MORE
    int SHUT_RD
    int SHUT_WR
    int socket(int domain, int type, int protocol)
    int bind(int fd, const sockaddr* addr, socklen_t n)
    int listen(int fd, int backlog)
    int accept4(int fd, sockaddr* addr, socklen_t* n, int flags)
    int connect(int fd, const sockaddr* addr, socklen_t n)
    int shutdown(int fd, int how)
    int setsockopt(int fd, int level, int name, const void* value, socklen_t n)
    int getsockopt(int fd, int level, int name, void* value, socklen_t* n)
    int getsockname(int fd, sockaddr* addr, socklen_t* n)
    int getpeername(int fd, sockaddr* addr, socklen_t* n)
    ssize_t recv(int fd, void* buf, size_t n, int flags)
    ssize_t send(int fd, const void* buf, size_t n, int flags)

cdef extern from "netinet/in.h" nogil:
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        unsigned char s6_addr[16]
    struct sockaddr_in:
        unsigned short sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
    int IPPROTO_TCP
    int IPPROTO_IP
    int IPPROTO_IPV6
    int IPV6_V6ONLY

cdef extern from "arpa/inet.h" nogil:
    uint16_t htons(uint16_t v)
    uint16_t ntohs(uint16_t v)
    int inet_pton(int af, const char* src, void* dst)
    const char* inet_ntop(int af, const void* src, char* dst, socklen_t n)

cdef extern from "netinet/tcp.h" nogil:
    int TCP_NODELAY
    int TCP_KEEPIDLE
    int TCP_KEEPINTVL
    int TCP_USER_TIMEOUT
    int TCP_INFO
    struct tcp_info:
        uint32_t tcpi_unacked

cdef extern from "unistd.h" nogil:
    int close(int fd)

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        void* ptr
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLL_CLOEXEC
    int EPOLL_CTL_ADD
    int EPOLL_CTL_DEL
    int EPOLL_CTL_MOD
    uint32_t EPOLLIN
    uint32_t EPOLLOUT
    uint32_t EPOLLRDHUP
    uint32_t EPOLLHUP
    uint32_t EPOLLERR
    uint32_t EPOLLET
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)

cdef extern from "malloc.h" nogil:
    int malloc_trim(size_t pad)

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* ts)

cdef extern from "sys/ioctl.h" nogil:
    int ioctl(int fd, unsigned long request, int* value)

cdef extern from "linux/sockios.h" nogil:
    unsigned long SIOCOUTQ

cdef extern from "sys/socket.h" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    int SCM_RIGHTS
    int MSG_DONTWAIT
    int MSG_CMSG_CLOEXEC
    size_t CMSG_SPACE(size_t n)
    size_t CMSG_LEN(size_t n)
    unsigned char* CMSG_DATA(cmsghdr* header)
    cmsghdr* CMSG_FIRSTHDR(msghdr* message)
    ssize_t sendmsg(int fd, const msghdr* message, int flags)
    ssize_t recvmsg(int fd, msghdr* message, int flags)

cdef extern from "sys/prctl.h" nogil:
    int PR_SET_PDEATHSIG
    int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
