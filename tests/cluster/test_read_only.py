"""A whole round needs what cluster/kubernetes gives its pods, and no more: /tmp, HOME, and no capability."""

import os
import shutil
import subprocess

import pytest

from tests.cluster.versions import ROOT

POD = """
set -e
mount --make-rprivate /
mount -t tmpfs none /mnt
mkdir /mnt/code /mnt/home
mount --bind "$ROOT" /mnt/code
mount -o remount,ro,bind /mnt/code
mount -t tmpfs none /tmp
mount -o remount,ro,bind /
cd /mnt/home
if touch /etc/written || touch /mnt/code/written; then exit 9; fi 2> /dev/null
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs \\
    env --ignore-environment HOME=/mnt/home PATH=/usr/bin:/bin PYTHONPATH=/mnt/code OMP_NUM_THREADS=1 \\
    /mnt/code/.venv/bin/python -m jobs demo --pool digits
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounting needs root and unshare")
def test_a_round_writes_to_tmp_and_home_alone() -> None:
    environment = {**os.environ, "ROOT": str(ROOT)}
    words = ["unshare", "--mount", "bash", "-c", POD]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "One round of active learning" in ended.stdout
