"""What the tests of this folder share."""

import pytest


@pytest.fixture
def write(tmp_path):
    """Writes flag files: name=text ... -> the path of the last."""

    def files(**texts):
        for name, text in texts.items():
            path = tmp_path / f"{name}.flags"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(path)

    return files
