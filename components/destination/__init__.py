"""Discovery: what stands behind an address that an application dialled, pushed to the proxies that ask.

`ports`, `model`, `index` and `translate` are pure; `publisher` and `server` hold the streams, `__main__` puts the parts
together.
"""
