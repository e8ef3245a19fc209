"""A text file in UTF-8: python -m studio.engine.convert PATH TARGET. Prints {"encoding": what it was} or {"error": words}."""

import json
import sys
from pathlib import Path

from studio.engine.files.encoding import convert, looks_like
from studio.errors import DataError


def converted(path: Path, target: Path) -> dict[str, str]:
    """The answer, once the copy is written."""
    found = looks_like(path)
    if not found:
        return {"error": f"The encoding of {path.name} is not recognised. Save it as UTF-8 in the program that it comes from."}
    try:
        convert(path, target, found)
    except (DataError, OSError) as error:
        return {"error": str(error)}
    return {"encoding": found}


if __name__ == "__main__":
    print(json.dumps(converted(Path(sys.argv[1]), Path(sys.argv[2]))))
