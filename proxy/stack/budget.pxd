# How many retries a service bears.
from libc.stdint cimport int64_t

cdef enum:
    SLOTS = 10   # of the time to live


cdef class RetryBudget:
    """Tokens: every request that is no retry brings some, every retry takes more, and both are forgotten in time."""
    cdef int64_t deposit_amount, withdraw_amount, reserve, slot_ns
    cdef int64_t slots[SLOTS]
    cdef int64_t current             # moved in the current slot, not yet in `slots`
    cdef int index
    cdef int64_t slot_began_ns
    cdef void expire(self, int64_t now_ns)
    cdef int64_t balance(self, int64_t now_ns)
    cdef void deposit(self, int64_t now_ns)
    cdef bint withdraw(self, int64_t now_ns)
