"""Reads the files of `[templates]`. What they say is looked at by `sixfbd.outbox.previews`."""

from pathlib import Path
from typing import Final

from sixfbd.config.text import Problem, UnreadableError, read_regular

SUFFIX: Final = ".j2"
MAX_TEMPLATES: Final = 200
MAX_TEMPLATE_BYTES: Final = 64 * 1024


def read_templates(directory: Path, *, needed: bool) -> tuple[dict[str, str], list[Problem]]:
    """Return the templates of a directory by their names without .j2, and what cannot be read of them.

    `needed`: that there is no such directory is an error.
    """
    try:
        paths = sorted(path for path in directory.iterdir() if path.name.endswith(SUFFIX))
    except (FileNotFoundError, NotADirectoryError):
        mend = "make it, or leave [templates] out"
        return {}, [Problem(file=str(directory), message="is no directory", hint=mend)] if needed else []
    except OSError as error:
        return {}, [Problem(file=str(directory), message=f"cannot be read: {error.strerror}")]
    if len(paths) > MAX_TEMPLATES:
        return {}, [Problem(file=str(directory), message=f"has more than {MAX_TEMPLATES} templates")]
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    for path in paths:
        try:
            texts[path.name.removesuffix(SUFFIX)] = read_regular(path, MAX_TEMPLATE_BYTES)[0].decode()
        except UnicodeDecodeError:
            problems.append(Problem(file=str(path), message="is no UTF-8 text"))
        except UnreadableError as error:
            problems.append(Problem(file=str(path), message=str(error)))
    return texts, problems
