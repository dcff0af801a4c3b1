"""What benchmarks hold must not be trained on."""

import hashlib


def qa_hash(question: str, answer: str) -> str:
    """SHA-256 hex digest of a question and its answer, whatever their case, spacing and placeholders."""
    return hashlib.sha256(f"{_normal(question)}\n{_normal(answer)}".encode()).hexdigest()


def _normal(text: str) -> str:
    return " ".join(text.replace("<image>", "").replace("<video>", "").casefold().split())
