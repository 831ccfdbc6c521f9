class Penalty:
    least_ns: int
    most_ns: int
    takes_failures: bool
    def __init__(self, least: float, most: float, takes_failures: bool = False) -> None: ...
