"""Fetches one file from the Hugging Face Hub; run by its path, as a process of its own, by `download`.

Arguments: repository, file, revision, folder. The exit code is 0 when the file lies in the folder.
"""

from __future__ import annotations

import sys

_CONNECT_SECONDS = 4.0


def main(repo: str, file: str, revision: str, folder: str) -> None:
    """Fetches the file, or ends with the library's exception; goes on where an earlier call stopped."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    # The download itself is patient with a slow Hub; this asks first whether there is one at all.
    get_hf_file_metadata(hf_hub_url(repo, file, revision=revision), timeout=_CONNECT_SECONDS)
    hf_hub_download(repo, file, revision=revision, local_dir=folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
