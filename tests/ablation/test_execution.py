from vxl_lightning.ablation.cells import Step
from vxl_lightning.ablation.execution import _behind


def test_the_longest_chain_goes_first():
    pretrain = Step("pretrain", {}, {})
    plain = Step("tune", {"row": "plain"}, {})
    tuned = Step("tune", {"row": "pretrained"}, {"compressor": pretrain})
    answers = [Step("evaluate", {}, {"model": plain}), Step("evaluate", {}, {"model": tuned})]
    behind = _behind([plain, answers[0], pretrain, tuned, answers[1]])
    assert [behind[s.key] for s in (pretrain, tuned, plain, *answers)] == [2, 1, 1, 0, 0]
