import pytest
from tests import tiny_lm

from vxl_lightning.data.chat import ChatFormat, exchanges
from vxl_lightning.data.schema import Sample, Turn


def test_pieces_join_to_the_template():
    tokenizer = tiny_lm.tokenizer()
    chat = ChatFormat(tokenizer, system="Look.")
    video = tokenizer.encode("V", add_special_tokens=False)
    joined = chat.head + video + chat.question("What?") + chat.answer("red") + chat.end()
    messages = [
        {"role": "system", "content": "Look."},
        {"role": "user", "content": "V\nWhat?"},
        {"role": "assistant", "content": "red"},
    ]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(joined) == whole.rstrip("\n")
    assert chat.end() == [tokenizer.convert_tokens_to_ids("<|im_end|>")]


def test_without_a_template():
    tokenizer = tiny_lm.tokenizer(template=None)
    chat = ChatFormat(tokenizer)
    assert chat.head == [tokenizer.bos_token_id]  # never empty: the video follows something
    assert tokenizer.decode(chat.question("What?")) == "\nQuestion: What?\nAnswer:\n"
    assert chat.end() == [tokenizer.eos_token_id]


@pytest.mark.parametrize("text", ["red", "", "a b"])
def test_decode_leaves_out_special_tokens(text):
    chat = ChatFormat(tiny_lm.tokenizer())
    assert chat.decode(chat.answer(text) + chat.end()) == text


def test_exchanges_drop_the_placeholder_and_an_open_question():
    turns = (Turn("human", "<image>\nWhat?"), Turn("gpt", " red "), Turn("human", "And?"))
    pairs = exchanges(Sample("a", "a.mp4", turns))
    assert [(p.question, p.answer) for p in pairs] == [("What?", "red")]


def test_a_word_has_the_ids_that_sentences_give_it():
    tokenizer = tiny_lm.tokenizer()
    assert ChatFormat(tokenizer).word("red") == tokenizer.encode(" red", add_special_tokens=False)
