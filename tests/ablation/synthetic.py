"""Made-up answers and costs, for tests of tables and report."""

import random

from vxl_lightning.ablation.accounting import Counts
from vxl_lightning.ablation.tables import RowInfo

TASKS = {"what": 8, "when": 8, "colour": 6}
STRENGTH = {"none": 0.8, "random": 0.15, "pool": 0.2, "dts": 0.45, "dts_recot": 0.7}


def rows(budgets=(0.0625,), names=tuple(STRENGTH)):
    found = []
    for variant in names:
        for retention in (1.0,) if variant == "none" else budgets:
            tokens = int(512 * retention)
            role = {"none": "uncompressed", "random": "baseline", "pool": "baseline"}.get(variant, "variant")
            recot = variant == "dts_recot"
            counts = Counts(512, tokens, float(tokens), tokens + 40, (tokens + 40) * 1000, 10**7, tokens * 10**8)
            found.append(
                RowInfo(
                    variant=variant, retention=retention, role=role, compressor=variant.partition("_")[0],
                    init="reconstruct" if recot else "none", selector=None, tuned=True, counts=counts,
                    masker="tube" if recot else None,
                    gain=0.11 if recot else None, gain_previous=0.2 if recot else None,
                )
            )  # fmt: skip
    return found


def predictions(rows, videos=20, seeds=(0,)):
    found = []
    for row in rows:
        for seed in seeds:
            for v in range(videos):
                for task, n in TASKS.items():
                    rng = random.Random(f"{row.variant} {row.retention} {seed} {v} {task}")
                    choices = [f"{task}{i}" for i in range(n)]
                    right = rng.random() < STRENGTH[row.variant]
                    found.append(
                        {
                            "variant": row.variant, "retention": row.retention, "seed": seed, "video": f"clip{v}",
                            "question_id": f"clip{v}#{task}", "task": task, "question": f"{task}?",
                            "choices": choices, "answer": choices[v % n],
                            "prediction": choices[v % n] if right else choices[(v + 1) % n], "correct": right,
                        }
                    )  # fmt: skip
    return found


def timings(rows):
    return [
        {
            "variant": r.variant, "retention": r.retention, "decode_ms": 30.0, "encoder_ms": 70.0,
            "compressor_ms": 2.0, "selector_ms": None, "prefill_ms": r.counts.lm_tokens / 4,
            "peak_memory_mib": 900.0,
        }
        for r in rows
    ]  # fmt: skip
