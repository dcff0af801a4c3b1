import subprocess
import sys

import psutil

from vxl_lightning.ablation.cells import Step
from vxl_lightning.ablation.execution import _behind


def test_the_longest_chain_goes_first():
    pretrain = Step("pretrain", {}, {})
    plain = Step("tune", {"row": "plain"}, {})
    tuned = Step("tune", {"row": "pretrained"}, {"compressor": pretrain})
    answers = [Step("evaluate", {}, {"model": plain}), Step("evaluate", {}, {"model": tuned})]
    behind = _behind([plain, answers[0], pretrain, tuned, answers[1]])
    assert [behind[s.key] for s in (pretrain, tuned, plain, *answers)] == [2, 1, 1, 0, 0]


def test_a_worker_ends_with_its_killed_parent():
    script = (
        "import os, time\n"
        "from vxl_lightning.ablation.execution import _processes\n"
        "if __name__ == '__main__':\n"
        "    pool = _processes(1, 1)\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    pool.submit(time.sleep, 600).result()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    worker.wait(timeout=60)
    assert not worker.is_running()
