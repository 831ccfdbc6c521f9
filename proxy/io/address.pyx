"""Socket addresses. An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`) is the IPv4 address everywhere in the proxy."""
from libc.string cimport memcmp, memcpy, memset

from proxy.io cimport posix

cdef enum:
    SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST has the same number

cdef const char* MAPPED_PREFIX = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"


cdef class Address:
    """`ip` is a literal, never a name. Raises ValueError naming what is not an address."""

    def __init__(self, str ip, int port):
        cdef posix.sockaddr_in* v4 = <posix.sockaddr_in*>&self.storage
        cdef posix.sockaddr_in6* v6 = <posix.sockaddr_in6*>&self.storage
        cdef bytes raw = ip.encode()
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port} is not between 0 and 65535")
        memset(&self.storage, 0, sizeof(self.storage))
        if posix.inet_pton(posix.AF_INET, raw, &v4.sin_addr) == 1:
            v4.sin_family = posix.AF_INET
            v4.sin_port = posix.htons(port)
            self.size = sizeof(posix.sockaddr_in)
        elif posix.inet_pton(posix.AF_INET6, raw, &v6.sin6_addr) == 1:
            v6.sin6_family = posix.AF_INET6
            v6.sin6_port = posix.htons(port)
            self.size = sizeof(posix.sockaddr_in6)
        else:
            raise ValueError(f"{ip!r} is not an IP address")
        self.describe()

    cdef void describe(self):
        cdef char buffer[64]
        cdef posix.sockaddr_in* v4 = <posix.sockaddr_in*>&self.storage
        cdef posix.sockaddr_in6* v6 = <posix.sockaddr_in6*>&self.storage
        cdef unsigned char raw[4]
        if self.storage.ss_family == posix.AF_INET6 and memcmp(v6.sin6_addr.s6_addr, MAPPED_PREFIX, 12) == 0:
            memcpy(raw, v6.sin6_addr.s6_addr + 12, 4)
            port = v6.sin6_port
            memset(&self.storage, 0, sizeof(self.storage))
            v4.sin_family = posix.AF_INET
            v4.sin_port = port
            memcpy(&v4.sin_addr, raw, 4)
            self.size = sizeof(posix.sockaddr_in)
        if self.storage.ss_family == posix.AF_INET:
            posix.inet_ntop(posix.AF_INET, &v4.sin_addr, buffer, sizeof(buffer))
            self.ip = buffer.decode()
            self.port = posix.ntohs(v4.sin_port)
            self.text = f"{self.ip}:{self.port}"
            self.is_loopback = (<unsigned char*>&v4.sin_addr)[0] == 127
        else:
            posix.inet_ntop(posix.AF_INET6, &v6.sin6_addr, buffer, sizeof(buffer))
            self.ip = buffer.decode()
            self.port = posix.ntohs(v6.sin6_port)
            self.text = f"[{self.ip}]:{self.port}"
            self.is_loopback = self.ip == "::1"

    def __eq__(self, other):
        return isinstance(other, Address) and self.text == other.text

    def __hash__(self):
        return hash(self.text)

    def __repr__(self):
        return f"Address({self.text})"


def parse_address(str text):
    """Read `ip:port` or `[ip6]:port`. Raises ValueError naming the text."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{text!r} is not ip:port")
    return Address(host[1:-1] if host.startswith("[") and host.endswith("]") else host, int(port))


cdef Address address_from_storage(posix.sockaddr_storage* storage):
    cdef Address address = Address.__new__(Address)
    address.storage = storage[0]
    address.size = sizeof(posix.sockaddr_in) if storage.ss_family == posix.AF_INET else sizeof(posix.sockaddr_in6)
    address.describe()
    return address


cdef Address original_destination(int fd):
    """Where the client wanted to go before iptables redirected it; the local address when nothing redirected it."""
    cdef posix.sockaddr_storage storage
    cdef posix.socklen_t size = sizeof(storage)
    memset(&storage, 0, sizeof(storage))
    if posix.getsockopt(fd, posix.IPPROTO_IP, SO_ORIGINAL_DST, &storage, &size) == 0:
        return address_from_storage(&storage)
    size = sizeof(storage)
    if posix.getsockopt(fd, posix.IPPROTO_IPV6, SO_ORIGINAL_DST, &storage, &size) == 0:
        return address_from_storage(&storage)
    size = sizeof(storage)
    if posix.getsockname(fd, <posix.sockaddr*>&storage, &size) != 0:
        return None
    return address_from_storage(&storage)
