"""What the documentation shows of formats is what the code reads."""

import json
import re
from pathlib import Path

from vxl_lightning.ablation.work import questions
from vxl_lightning.data.schema import Sample
from vxl_lightning.models.alignment import Event, events

DOCS = Path(__file__).parents[1] / "docs"


def test_the_record_of_your_own_videos_is_a_test_sample() -> None:
    text = (DOCS / "your_own_videos.md").read_text()
    block = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert block
    sample = Sample.from_record(json.loads(block[1]), "docs")
    assert [(q["task"], q["answer"]) for q in questions(sample)] == [("what", "star"), ("when", "2 s")]
    assert events(sample) == [Event(2.25, ("red", "star"))]
