"""The whole pipeline without a network: no process asks for one, and no secret of the environment gets into a file."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import watched
from workplaces import Workplace

pytestmark = [pytest.mark.faults, pytest.mark.timeout(2400)]
# A namespace with a loopback device that is down.
ALONE = ("unshare", "--map-root-user", "--net")
SECRETS = {
    name: f"canary-{name.lower()}"
    for name in (
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "WANDB_API_KEY",
        "OPENAI_API_KEY",
        "DB_PASSWORD",
    )
}
# Sockets of the file system join the processes of one machine; one that is made and not used asks for nothing.
LOCAL = re.compile(
    r"\('socket\.(?:__new__|gethostname)'|\('socket\.\w+', <socket\.socket [^>]*family=(?:1|AddressFamily\.AF_UNIX),"
)


def alone() -> bool:
    """Whether this user may make such a namespace."""
    return (
        shutil.which(ALONE[0]) is not None
        and subprocess.run([*ALONE, "true"], check=False, capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not alone(), reason="this user may not make a namespace without a network (unshare -rn)")
def test_the_pipeline_needs_no_network_and_keeps_the_secrets_of_its_environment(tmp_path: Path) -> None:
    events = tmp_path / "events"
    events.touch()
    environment = watched.watched(events, "socket.", False, SECRETS | {"HF_HUB_OFFLINE": "0"})
    place = Workplace(tmp_path, **environment)
    done = place.run(*ALONE, sys.executable, "-m", "qthink_core.cli", "run")
    assert done.returncode == 0, done.stdout[-3000:]
    assert (place.root / "results/table.md").is_file()
    asked = [line for line in events.read_text().splitlines() if not LOCAL.match(line)]
    assert asked == []
    # an error quotes what it was given, and not what lies around it
    params = place.root / "params.yaml"
    params.write_text(params.read_text().replace("gamma:", "gama:", 1))
    failed = place.run(*ALONE, sys.executable, "-m", "qthink_core.cli", "run")
    assert failed.returncode == 2, failed.stdout
    said = done.stdout + failed.stdout
    assert [secret for secret in SECRETS.values() if secret in said] == []
    leaked = [
        str(path)
        for path in tmp_path.rglob("*")
        if path.is_file() and not path.is_symlink() and b"canary-" in path.read_bytes()
    ]
    assert [path for path in leaked if "tests/faults" not in path] == []
    assert len([path for path in place.root.rglob("*") if path.is_file()]) > 500
