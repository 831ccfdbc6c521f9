"""What a request passes through between its connections: exchange, balancing, queueing, failfast, retries, breakers,
deadlines.

Compiled and shared by `proxy.inbound` and `proxy.outbound`, which decide where requests go and what they are counted
as.
"""
