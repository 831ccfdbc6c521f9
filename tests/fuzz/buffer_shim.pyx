# cython: language_level=3
"""Lets Python fill the buffers of the data path, which only compiled code can reach."""
from proxy.stack.buffer cimport Buffer, Queue, queue_drop, queue_put, queue_rewind, queue_take, queue_waiting


def buffered(list pieces):
    """The same bytes out of a Buffer."""
    cdef Buffer buffer = Buffer()
    cdef bytes piece
    for piece in pieces:
        buffer.put(piece, len(piece))
    return buffer.data[:buffer.size] if buffer.size else b""


def queued(list pieces, bint keeps, int taken):
    """The same bytes out of a Queue, `taken` at a time between the pieces; once more if it `keeps` them."""
    cdef Queue queue = Queue(NULL, 0, 0, 0, keeps)
    cdef char some[256]
    cdef Py_ssize_t count
    cdef bytes piece
    found = []
    try:
        for piece in pieces:
            queue_put(&queue, piece, len(piece))
            count = queue_take(&queue, some, taken)
            found.append(some[:count])
        if keeps:
            queue_rewind(&queue)
            found = []
        while queue_waiting(&queue):
            count = queue_take(&queue, some, sizeof(some))
            found.append(some[:count])
        return b"".join(found)
    finally:
        queue_drop(&queue)
