"""A made-up evaluation: two benchmarks with categories and three rows, judged and counted by the real code."""

import random
from dataclasses import replace

import torch
from tests.evaluation.toy import Toy

from vxl_lightning.ablation.statistics import clustered_mean
from vxl_lightning.data.decoding import write_video
from vxl_lightning.evaluation import results
from vxl_lightning.evaluation.answerer import Reply
from vxl_lightning.evaluation.asking import Answered
from vxl_lightning.evaluation.base import Figure, Problem, Question
from vxl_lightning.reporting.evaluation import write_evaluation_report
from vxl_lightning.reporting.manifest import manifest

STRENGTH = {"reference": 0.75, "dtd 1/4": 0.7, "uniform 1/16": 0.4}
KEPT = {"reference": 16, "dtd 1/4": 8, "uniform 1/16": 2}
SECONDS = 8.0
TASKS = ("action count", "state", "scene transition that has a long name indeed", "order")
PROBLEMS = {"quiz": [Problem("quiz.json[7]", "answer 'C' is none of its options"), Problem("9.mp4", "no such file", 3)]}
MEAN = {"config": {"fps": 1.0, "max_frames": 16, "answering": "generate", "limit": 0}}


class Quiz(Toy):
    """Toy with a mean by video and one by task."""

    title, folder_name = "Quiz", "quiz"

    def figures(self, judged):
        def mean(chosen):
            return clustered_mean(
                torch.tensor([j.judgement.score for j in chosen]).double().numpy(), [j.question.video for j in chosen]
            )

        shares = {j.question.id: j.judgement.score / len(judged) for j in judged}
        whole = Figure("accuracy", *mean(judged), len(judged), headline=True, shares=shares)
        tasks = [[j for j in judged if j.question.categories["task"] == t] for t in TASKS]
        macro = Figure("mean of tasks (macro)", sum(mean(t)[0] for t in tasks) / len(tasks), float("nan"), len(judged))
        return [whole, macro]


def questions(n, videos=12):
    rng = random.Random(n)
    colours = ("red", "green", "blue", "white")
    return [
        Question(
            id=f"q{i}", video=f"{i % videos}.mp4", answer=rng.choice(colours), options=colours,
            text=f"Number {i}: what colour is the <b>ball</b> that rolls in after the dog has left?",
            categories={"task": TASKS[i % len(TASKS)], "duration": ("short", "long")[i % 3 == 0]},
        )
        for i in range(n)
    ]  # fmt: skip


def answered(row, asked):
    found = []
    for q in asked:
        rng = random.Random(f"{row} {q.id}")
        wrong = next(o for o in q.options if o != q.answer)
        vague = f"I think it is\nperhaps </script> {wrong}"
        text = q.answer if rng.random() < STRENGTH[row] else rng.choice([wrong, vague])
        times = [SECONDS * i / KEPT[row] for i in range(KEPT[row])]
        counts = {"grid_tokens": 1024.0, "visual_tokens": 64.0 * KEPT[row], "kv_bytes": 65536.0 * KEPT[row]}
        reply = Reply(text, kept=times, counts=counts, milliseconds={"prefill": 12.5 * KEPT[row], "answer": 40.0})
        found.append(Answered(q, reply))
    found[-1] = replace(found[-1], reply=Reply(""), failed=f"{found[-1].question.video}: cannot be decoded")
    return found


def answers(folder, n=64):
    made = []
    for name, count in (("quiz", n), ("other", n // 4)):
        asked = questions(count)
        made += [results.Answers.of(r, name, Quiz(Quiz.Config(), folder), answered(r, asked)) for r in STRENGTH]
    return made


def write_videos(folder, names=("0.mp4", "1.mp4", "2.mp4")):
    """Frames that brighten, so that they can be told apart; not every video is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        levels = torch.arange(16, dtype=torch.uint8)[:, None, None, None] * 16
        write_video(folder / name, levels.expand(16, 3, 48, 64).contiguous(), 16 / SECONDS)


def write_report(path, made, videos=None, **changed):
    benchmarks = {a.benchmark: Quiz(Quiz.Config(), path.parent) for a in made}
    content = manifest({}, [], [], {"quiz": "abc"}) | MEAN | {"note": "<script>alert('x')</script>"}
    given = {
        "name": "What is left of a tiny model", "results": results.figures(made, benchmarks),
        "groups": results.groups(made), "questions": results.questions(made), "costs": results.costs(made),
        "manifest": content, "problems": PROBLEMS, "failed": {"3.mp4": "3.mp4: cannot be decoded (no moov atom)"},
        "videos": videos,
    }  # fmt: skip
    write_evaluation_report(path, **(given | changed))
