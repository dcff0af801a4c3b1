"""The tables of a pruning run that never was: tiny videos, every rule met, hostile text."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import torch

from vxl_lightning.curation import schema
from vxl_lightning.data.decoding import write_video

HOSTILE = "</script><img src=x onerror=alert(1)> \ud800 <b>&amp;"
SCORES = pa.schema([("row", pa.int64()), ("rule", pa.string()), ("score", pa.float64())])
RULES = pa.schema(
    [
        ("rule", pa.string()), ("stage", pa.string()), ("mode", pa.string()), ("threshold", pa.float64()),
        ("quantile", pa.float64()), ("higher_is_worse", pa.bool_()), ("reached", pa.int64()), ("failed", pa.int64()),
    ]
)  # fmt: skip
STRATA = pa.schema(
    [(name, pa.string()) for name in ("stratum", "source", "duration", "form", "cluster")]
    + [(name, pa.int64()) for name in ("before", "after", "tokens_before", "tokens_after")]
)
DUPLICATES = pa.schema(
    [("media", pa.string()), ("duplicate_of", pa.string()), ("overlap", pa.float64()), ("rule", pa.string())]
)
# rule -> stage, mode, threshold, quantile, higher is worse, share of the samples that fail
PLAN = {
    "missing": ("annotations", "quarantine", None, None, True, 0.02),
    "damaged": ("probe", "quarantine", None, None, True, 0.04),
    "placeholder": ("conversation", "enforce", None, None, True, 0.02),
    "repeated_answer": ("conversation", "enforce", 0.5, None, True, 0.03),
    "near_video": ("duplicates", "enforce", 0.7, None, True, 0.05),
    "contamination": ("contamination", "enforce", None, None, True, 0.02),
    "static": ("redundancy", "enforce", 0.002, None, False, 0.05),
    "redundancy": ("redundancy", "score", 0.05, None, False, 0.04),
    "blind": ("necessity", "enforce", 0.35, 0.2, False, 0.16),
    "budget": ("select", "enforce", None, None, True, 0.2),
}
RECIPE = {
    "name": "tiny",
    "seed": 7,
    "media_root": "media",
    "select": {"budget": 0.5},
    "duplicates": {"mode": "enforce"},
}
TIMINGS = [
    {
        "stage": "frames", "items": 1200, "seconds": 10.0, "unit": "frames", "rate": 120.0,
        "limit": "bare decoding", "limit_rate": 128.0, "of_limit": 0.9375,
    },
    {
        "stage": "decide", "items": 400, "seconds": 0.1, "unit": "samples", "rate": 4000.0,
        "limit": None, "limit_rate": None, "of_limit": None,
    },
]  # fmt: skip


def write_media(root, videos, frames=8, size=(48, 64)):
    """Videos of drifting colour, the second a broken file; their paths."""
    root.mkdir(parents=True)
    names = [f"clip_{v:03d}.mp4" for v in range(videos)]
    h, w = size
    y, x = torch.meshgrid(torch.linspace(0, 1, h), torch.linspace(0, 1, w), indexing="ij")
    for v, name in enumerate(names):
        t = torch.arange(frames).view(-1, 1, 1) / frames
        hue = [(torch.sin(6.3 * (x * (1 + v % 3) + y * (v % 4) + t + v / 7 + c / 3)) + 1) / 2 for c in range(3)]
        write_video(root / name, (torch.stack(hue, 1) * 255).to(torch.uint8), fps=4)
    (root / names[1]).write_bytes(b"\0" * 500)
    return names


def write_tables(folder, names, samples, optional=True, seed=0):
    """All tables of ``samples`` samples about the videos ``names``; the first question is hostile."""
    rng = np.random.default_rng(seed)
    names = [*names, "../outside.mp4"]
    rows, decisions, errors, scores = [], [], [], []
    failed = {rule: [] for rule in PLAN}
    reached = dict.fromkeys(PLAN, 0)
    for row in range(samples):
        media = names[-1] if row == 3 else names[1] if row == 4 else names[row * 7 % (len(names) - 1)]
        question = HOSTILE if row == 0 else f"What happens after the {row}th person opens the door?"
        turns = [
            {"from": "human", "value": f"<video>\n{question}"},
            {"from": "gpt", "value": "She puts the cup on the table and leaves. " * (1 + row % 9)},
        ]
        record = json.dumps({"id": str(row), "conversations": turns, "video": media})
        sample_id = hashlib.sha256(record.encode()).hexdigest()[:16]
        common = {
            "row": row, "sample_id": sample_id, "source": "needles.json" if row % 3 else "<i>talk</i>.jsonl",
            "record_number": row + 1, "id": "<svg onload=alert(2)>" if row == 1 else f"q{row}", "media": media,
        }  # fmt: skip
        rows.append(common | {"kind": "video", "record": record, "questions": 1, "problem": None, "detail": None})
        hit, score = None, None
        for rule, (stage, mode, threshold, _, worse, share) in PLAN.items():
            reached[rule] += 1
            fails = rng.random() < share or (row, rule) in ((3, "missing"), (4, "damaged"))
            value = None
            if threshold is not None:
                spread = np.exp(rng.normal(0, 0.8))
                value = threshold * (1 + spread * 0.4 if worse else 1 / (1 + spread))
                if not fails:
                    value = threshold * (1 / (1 + spread) if worse else 1 + 8 * spread)
                scores.append({"row": row, "rule": rule, "score": value})
            if fails:
                failed[rule].append(row)
                if mode == "quarantine":
                    detail = f"{media}: {rule} since frame {row}"
                    errors.append(
                        {k: common[k] for k in common if k != "id"}
                        | {"stage": stage, "problem": rule, "detail": detail}
                    )
                if mode != "score":
                    hit, score = rule, value
                    break
        mode = PLAN[hit][1] if hit else None
        decisions.append(
            common
            | {
                "decision": "keep" if hit is None else "quarantine" if mode == "quarantine" else "drop",
                "rule": hit, "score": score, "threshold": PLAN[hit][2] if hit else None,
                "duplicate_of": names[0] if hit == "near_video" else None,
                "detail": HOSTILE.replace("\ud800", "") if row == 0 else None, "overridden": False, "tokens": 6400,
            }
        )  # fmt: skip
    table = pa.Table.from_pylist
    write = schema.write_table
    write(folder / "samples.parquet", table(rows, schema.SAMPLES))
    write(folder / "decisions.parquet", table(decisions, schema.DECISIONS))
    write(folder / "errors.parquet", table(errors, schema.ERRORS))
    rules = [
        {
            "rule": rule, "stage": stage, "mode": mode, "threshold": threshold, "quantile": quantile,
            "higher_is_worse": worse, "reached": reached[rule], "failed": len(failed[rule]),
        }
        for rule, (stage, mode, threshold, quantile, worse, _) in PLAN.items()
    ]  # fmt: skip
    write(folder / "rules.parquet", table(rules, RULES))
    media = [{"media": n, "kind": "video", "samples": 1, "bytes": 500, "problem": None, "detail": None} for n in names]
    write(folder / "media.parquet", table(media, schema.MEDIA))
    probed = [{"media": n, "duration": 2.0, "width": 64, "height": 48, "frames": 8, "fps": 4.0} for n in names]
    probed[1] = {"media": names[1], "problem": "damaged", "detail": "moov atom not found"}
    probed.pop()
    write(folder / "probe.parquet", table(probed, schema.PROBE))
    if not optional:
        return
    write(folder / "scores.parquet", table(scores, SCORES))
    duplicates = [
        {"media": names[2 + i], "duplicate_of": names[0], "overlap": 0.7 + 0.02 * i, "rule": "near_video"}
        for i in range(min(6, len(names) - 3))
    ] + [{"media": names[-2], "duplicate_of": names[2], "overlap": 1.0, "rule": "exact_video"}]
    write(folder / "duplicates.parquet", table(duplicates, DUPLICATES))
    strata = [
        {
            "stratum": f"{source}|{duration}|{form}|{cluster}", "source": source, "duration": duration, "form": form,
            "cluster": str(cluster), "before": 12, "after": 6 + cluster % 3, "tokens_before": 64000 * (1 + cluster),
            "tokens_after": int(64000 * (1 + cluster) * (0.4 + 0.1 * (cluster % 5))),
        }
        for source in ("needles.json", "<i>talk</i>.jsonl")
        for duration in ("over 1 h", "3 to 10 min", "under 30 s")
        for form in ("open", "choice", "yes/no")
        for cluster in range(6)
    ]  # fmt: skip
    write(folder / "strata.parquet", table(strata, STRATA))
