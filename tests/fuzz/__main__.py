"""`make fuzz`: a long search of every target, or of one: `python -m tests.fuzz [TARGET]`, for FUZZ_SECONDS in all.

Guided by coverage where atheris (libFuzzer) can be installed: the compiled modules are built once more so that every
block of them counts. Elsewhere hypothesis searches blindly, for as long. What is found is written into the corpus,
where `make test` finds it again.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.fuzz import corpus, search
from tests.fuzz.targets import TARGETS, Target
from tests.kit import instrumented

ATHERIS: Final = "atheris==3.0.0"
FOLDER: Final = instrumented.ROOT / "build" / "fuzz"
FLAGS: Final = ["-O1", "-g", "-fsanitize-coverage=trace-pc,trace-cmp"]
MAX_SIZE: Final = 8192
RUN_SECONDS: Final = 20
"""One input that takes longer is a finding."""
LEAST_SECONDS: Final = 10.0


class Guide:
    """libFuzzer, ready to run: atheris in a folder of its own, the instrumented tree, and what counts its blocks."""

    def __init__(self) -> None:
        self.packages = FOLDER / "packages"
        if not self.packages.exists():
            uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--python", sys.executable]
            subprocess.run([*uv, "--only-binary", ":all:", "--target", str(self.packages), ATHERIS], check=True)
        self.tree = instrumented.build("fuzz", FLAGS, "proxy.wire")
        self.library = FOLDER / "coverage.so"
        source = Path(__file__).with_name("coverage.c")
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(self.library), str(source)], check=True)

    def search(self, target: Target, seconds: float) -> list[tuple[bytes, str]]:
        """Inputs that broke something, each with what was said."""
        folder = FOLDER / "inputs" / target.name
        found = FOLDER / "found" / target.name
        shutil.rmtree(found, ignore_errors=True)
        for each in (folder, found):
            each.mkdir(parents=True, exist_ok=True)
        for name, data in corpus.seeds(target.name).items():
            (folder / name).write_bytes(data)
        words = FOLDER / f"{target.name}.words"
        words.write_text("".join(f'"{_hexadecimal(word)}"\n' for word in target.words))
        options = [
            f"-max_total_time={seconds:.0f}", f"-max_len={MAX_SIZE}", f"-timeout={RUN_SECONDS}", f"-dict={words}",
            f"-artifact_prefix={found}/", "-print_final_stats=1", "-use_value_profile=1",
        ]  # fmt: skip
        if "TULLE_SEED" in os.environ:
            options.append(f"-seed={os.environ['TULLE_SEED']}")
        preloaded = f"{self.library} {self.packages / 'ubsan_with_fuzzer.so'}"
        environ = {**instrumented.environment(FLAGS), "PYTHONPATH": str(self.packages), "LD_PRELOAD": preloaded}
        command = [sys.executable, "-m", "tests.fuzz.guided", target.name, str(self.library), *options, str(folder)]
        run = subprocess.run(command, cwd=self.tree, env=environ, capture_output=True, text=True, errors="replace")
        last = [line for line in run.stderr.splitlines() if " cov: " in line or line.startswith("stat::number")][-2:]
        print("\n".join(f"fuzz: {target.name}: {line}" for line in last), flush=True)
        if run.returncode and not any(found.iterdir()):
            raise SystemExit(f"fuzz: {target.name} did not run:\n{run.stdout[-2000:]}{run.stderr[-4000:]}")
        return [(path.read_bytes(), run.stdout[-1500:] + run.stderr[-1500:]) for path in sorted(found.iterdir())]


def _hexadecimal(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def blind(target: Target, seconds: float) -> list[tuple[bytes, str]]:
    """The same without a guide: one search of hypothesis after the other."""
    from hypothesis import HealthCheck, Phase, given, settings

    seeds = list(corpus.seeds(target.name).values())
    failing: list[tuple[bytes, str]] = []

    @settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck),
              phases=(Phase.generate, Phase.shrink))  # fmt: skip
    @given(search.inputs(seeds, target.words))
    def look(data: bytes) -> None:
        try:
            target.check(data)
        except Exception as error:
            failing[:] = [(data, repr(error))]  # the last of a search is its smallest
            raise

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not failing:
        try:
            look()
        except Exception as error:
            print(f"fuzz: {target.name}: {error!r}")
    return failing


def main() -> int:
    """Search, and write down what is found."""
    wanted = [TARGETS[name] for name in sys.argv[1:]] or list(TARGETS.values())
    total = float(os.environ.get("FUZZ_SECONDS") or 600)
    seconds = max(LEAST_SECONDS, total / len(wanted))
    look = blind
    try:
        look = Guide().search
    except subprocess.CalledProcessError as error:
        print(f"fuzz: no libFuzzer here ({error}); hypothesis searches without a guide")
    findings = 0
    for target in wanted:
        print(f"fuzz: {target.name} for {seconds:.0f} s", flush=True)
        for data, said in look(target, seconds):
            path = corpus.keep(target.name, data, f"Found by make fuzz; say here what it is for: {said}"[:80])
            print(f"{said}\nfuzz: {target.name} broke; the input is {path}")
            findings += 1
    print(f"fuzz: {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
