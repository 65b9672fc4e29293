"""What is settled in a tokenizer's files: the class that reads them, the end of a turn, padding, and marks that are kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qthink_core.artifacts.files import canonical_json, write_file
from qthink_core.benchmarks.bounded_rendering import check_tokenizer
from qthink_core.errors import DataError, first_line
from qthink_core.models.acceptance.chat_template import END_THINK, THINK, conversation
from qthink_core.models.model_folder import GENERATION, TEMPLATE, TOKENIZER, TOKENIZER_CONFIG, read_json
from qthink_core.models.tokenizer import load_tokenizer

# Words, numbers, spaces, newlines, marks and letters of several alphabets, as rules of splitting differ in them.
PROBE = "It's 12345 + 6.75 = x,\n\n  so  f(x)\t→ Zürich, 東京 is\n<think>\nДа</think>\n\n\\boxed{7}"
AS_WRITTEN = "PreTrainedTokenizerFast"


def settle(folder: Path) -> list[str]:
    """Edits the tokenizer's files in `folder` and returns a sentence for each change.

    Raises DataError when transformers read the tokenizer otherwise than it is written, and lose text by it.
    """
    _check_cost(folder)
    return [*_read_as_written(folder), *_marks_kept(folder), *_end_of_turn(folder), *_padding(folder)]


def _check_cost(folder: Path) -> None:
    """Raises DataError where a pattern of the tokenizer takes too much time or memory, as it is written or as it is read."""
    origin, own = str(folder / TOKENIZER), written(folder)
    check_tokenizer(lambda text: own.encode(text, add_special_tokens=False).ids, own.decode, origin)
    try:
        loaded = load_tokenizer(folder)
    except DataError:  # the class does not fit, and the next step says so if no other does
        return
    check_tokenizer(lambda text: loaded.encode(text, add_special_tokens=False), loaded.decode, origin)


def end_of_turn(tokenizer: Any, origin: str) -> str | None:
    """The token with which the chat template ends an assistant's turn; None when it ends in no token of the tokenizer.

    Raises DataError where the template fails or takes too much time or memory.
    """
    after = conversation(tokenizer, origin).partition("Goodbye")[2]
    if tokenizer.eos_token and after.startswith(tokenizer.eos_token):
        return str(tokenizer.eos_token)
    return max((token for token in tokenizer.get_added_vocab() if after.startswith(token)), key=len, default=None)


def _read_as_written(folder: Path) -> list[str]:
    """Some classes of transformers take the vocabulary from tokenizer.json and split text by rules of their own."""
    if _ids(folder) == _written_ids(folder):
        return []
    named = read_json(folder / TOKENIZER_CONFIG).get("tokenizer_class")
    _edit(folder / TOKENIZER_CONFIG, {"tokenizer_class": AS_WRITTEN})
    if _ids(folder) == _written_ids(folder):
        return [f"tokenizer_class is {AS_WRITTEN} in place of {named}, which does not read {TOKENIZER} as it is written"]
    _edit(folder / TOKENIZER_CONFIG, {"tokenizer_class": named})
    loaded = load_tokenizer(folder)
    if loaded.decode(loaded.encode(PROBE, add_special_tokens=False)) != PROBE:
        raise DataError(
            f"{folder / TOKENIZER} is read by transformers as a {type(loaded).__name__}, which loses text: "
            "take the model from another source"
        )
    return [f"transformers read {TOKENIZER} as a {type(loaded).__name__}, which splits text by its own rules"]


def _ids(folder: Path) -> list[int] | None:
    try:
        return list(load_tokenizer(folder).encode(PROBE, add_special_tokens=False))
    except DataError:  # the class does not fit, and the next step says so if no other does
        return None


def _written_ids(folder: Path) -> list[int]:
    return list(written(folder).encode(PROBE, add_special_tokens=False).ids)


def written(folder: Path) -> Any:
    """What tokenizer.json itself says, without lengths to cut and to pad to; raises DataError where it cannot be read."""
    from tokenizers import Tokenizer

    try:
        found = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # noqa: BLE001 - the package raises nothing more special
        raise DataError(f"{folder / TOKENIZER} cannot be read ({first_line(error)}): fetch it again") from None
    found.no_truncation()
    found.no_padding()
    return found


def _marks_kept(folder: Path) -> list[str]:
    """Decoding drops special tokens, so the marks of a think block must not be special."""
    content, about = read_json(folder / TOKENIZER), read_json(folder / TOKENIZER_CONFIG)
    listed = about.get("added_tokens_decoder")
    entries = [*content.get("added_tokens", []), *(listed.values() if isinstance(listed, Mapping) else [])]
    marked = [
        entry
        for entry in entries
        if isinstance(entry, dict) and entry.get("content") in (THINK, END_THINK) and entry.get("special")
    ]
    for entry in marked:
        entry["special"] = False
    for key in ("additional_special_tokens", "extra_special_tokens"):
        if isinstance(about.get(key), list):
            kept = [token for token in about[key] if _content(token) not in (THINK, END_THINK)]
            marked += [{"content": _content(token)} for token in about[key] if token not in kept]
            about[key] = kept
    if not marked:
        return []
    write_file(folder / TOKENIZER, canonical_json(content))
    write_file(folder / TOKENIZER_CONFIG, canonical_json(about))
    return [f"{' and '.join(sorted({entry['content'] for entry in marked}))} are no special tokens, so decoding keeps them"]


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, Mapping) else token


def _end_of_turn(folder: Path) -> list[str]:
    """The end token is what ends an assistant's turn; a base model's files often name the end of a document."""
    tokenizer = load_tokenizer(folder)
    end, named = end_of_turn(tokenizer, str(folder / TEMPLATE)), tokenizer.eos_token
    if end is None:
        return []  # model_folder.check says so
    changes = []
    if end != named:
        _edit(folder / TOKENIZER_CONFIG, {"eos_token": end})
        changes.append(f"eos_token is {end}, which ends a turn, in place of {named}")
    number, listed = tokenizer.convert_tokens_to_ids(end), read_json(folder / GENERATION).get("eos_token_id")
    others = listed if isinstance(listed, list) else [] if listed is None else [listed]
    numbers = set(tokenizer.get_vocab().values())
    if unknown := [one for one in others if type(one) is not int or one not in numbers]:
        raise DataError(f"{folder / GENERATION} has the eos_token_id {unknown[0]!r:.40}, which is no token: correct it")
    if number not in others:
        _edit(folder / GENERATION, {"eos_token_id": [number, *others]})
        changes.append(f"generation ends at {end}, too")
    return changes


def _padding(folder: Path) -> list[str]:
    """Any token can pad, because a mask hides it; the end token is the usual choice."""
    tokenizer = load_tokenizer(folder)
    if tokenizer.pad_token_id is not None or tokenizer.eos_token is None:
        return []
    _edit(folder / TOKENIZER_CONFIG, {"pad_token": str(tokenizer.eos_token)})
    return [f"pad_token is {tokenizer.eos_token}, since there was none"]


def _edit(path: Path, values: Mapping[str, Any]) -> None:
    """Replaces values in a JSON file; None removes one."""
    content = read_json(path) | dict(values)
    write_file(
        path, canonical_json({key: value for key, value in content.items() if value is not None or key not in values})
    )
