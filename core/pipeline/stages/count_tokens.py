"""Entry point of the child process that counts the tokens of a text, for plans."""

import sys
from contextlib import redirect_stdout

from core.engine.checkpoints.companions import template_constants
from core.engine.datasets.text_files import read_documents
from core.engine.vocabulary.choice import choose_tokens
from core.engine.vocabulary.counts import count_tokens, counted_documents
from core.engine.vocabulary.files import named_ids
from core.engine.vocabulary.tokenizer_kinds import read_tokenizer
from core.pipeline.messages import CountAnswer, CountedTokens, CountQuestion
from secateur_wire.errors import InvalidRequest
from secateur_wire.job_body import VocabularyChoice


def answer(question: CountQuestion) -> CountAnswer:
    """Return the tokens that a text uses, chosen as a job with `vocabulary: "auto"` does; or why none can go."""
    folder, text = question.folder, question.text
    try:
        tokenizer = read_tokenizer(folder)
        documents = counted_documents(read_documents(text.path, text.format, text.text_field))
        counts = count_tokens(documents, folder)
        chosen = choose_tokens(
            tokenizer,
            counts,
            tokens=None,
            keep=template_constants(folder),
            required=named_ids(folder, question.vocabulary_size),
            round_to=VocabularyChoice().round_to,
        )
    except InvalidRequest as refused:
        return CountAnswer(refusal=refused.message)
    return CountAnswer(
        counted=CountedTokens(used=chosen.used, tokens=counts.tokens, least=chosen.least, kept=len(chosen.ids))
    )


def main() -> None:
    """Answer the question on standard input; what libraries print goes to standard error."""
    with redirect_stdout(sys.stderr):
        answered = answer(CountQuestion.model_validate_json(sys.stdin.read()))
    sys.stdout.write(answered.model_dump_json())


if __name__ == "__main__":
    main()
