"""The retry budget: pure, time is an argument. Retries may be a part of all requests, so that they cannot multiply the
load on a service that fails because of load.

The arithmetic is Linkerd's (tower's `TpsBudget`): whole tokens in ten slots of the time to live. Up to a ratio of 1
a request brings one token and a retry takes 1 / ratio, rounded down; above it, a request brings a thousand.
"""
from libc.stdint cimport int64_t

cdef enum:
    FINE = 1000  # tokens a request brings where ratios above 1 have to be told apart


cdef class RetryBudget:
    """`ratio` retries per request, besides `min_per_second`, over `ttl` seconds; Linkerd's defaults 0.2, 10, 10.

    Raises ValueError naming what cannot be.
    """

    def __init__(self, double ratio=0.2, int min_per_second=10, double ttl=10.0):
        if not 0.0 <= ratio <= 1000.0:
            raise ValueError(f"a retry ratio of {ratio:g} is not between 0 and 1000")
        if not 1.0 <= ttl <= 60.0:
            raise ValueError(f"a time to live of {ttl:g} s is not between 1 s and 60 s")
        if not 0 <= min_per_second <= 1_000_000:
            raise ValueError(f"{min_per_second} retries per second are not between 0 and a million")
        if ratio == 0.0:
            self.deposit_amount, self.withdraw_amount = 0, 1
        elif ratio <= 1.0:
            self.deposit_amount, self.withdraw_amount = 1, <int64_t>(1.0 / ratio)
        else:
            self.deposit_amount, self.withdraw_amount = FINE, <int64_t>(FINE / ratio)
        self.reserve = min_per_second * <int64_t>ttl * self.withdraw_amount
        self.slot_ns = <int64_t>(ttl * 1e9) // SLOTS

    cdef void expire(self, int64_t now_ns):
        """Close the slots that have passed since the current one began."""
        cdef int64_t behind = now_ns - self.slot_began_ns
        if behind < self.slot_ns:
            return
        self.slots[self.index] = self.current
        self.current = 0
        self.index = (self.index + 1) % SLOTS
        if behind > self.slot_ns * SLOTS:
            behind = self.slot_ns * SLOTS + 1  # nothing is older than the time to live: one round clears it all
        while behind > self.slot_ns:
            self.slots[self.index] = 0
            behind -= self.slot_ns
            self.index = (self.index + 1) % SLOTS
        self.slot_began_ns = now_ns

    cdef int64_t balance(self, int64_t now_ns):
        cdef int64_t total
        cdef int i
        self.expire(now_ns)
        total = self.current + self.reserve
        for i in range(SLOTS):
            total += self.slots[i]
        return total

    cdef void deposit(self, int64_t now_ns):
        """A request ended that is not tried again."""
        self.expire(now_ns)
        self.current += self.deposit_amount

    cdef bint withdraw(self, int64_t now_ns):
        """Whether one more retry is affordable; pays for it if so."""
        if self.balance(now_ns) < self.withdraw_amount:
            return False
        self.current -= self.withdraw_amount
        return True
