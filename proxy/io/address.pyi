class Address:
    ip: str
    port: int
    text: str
    is_loopback: bool
    def __init__(self, ip: str, port: int) -> None: ...

def parse_address(text: str) -> Address: ...
