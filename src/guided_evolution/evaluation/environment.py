"""The environment of a worker, built from an allow-list: keys and tokens never get in."""

from __future__ import annotations

import os
import site
from collections.abc import Mapping
from pathlib import Path

from guided_evolution.evaluation import Job
from guided_evolution.locations import CACHE_VARIABLE, DATA_VARIABLE, cache_folder

KEPT_VARIABLES = (
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "OPENBLAS_CORETYPE"),
    *(
        "CUDA_HOME",
        "CUDA_VISIBLE_DEVICES",
        "CUDA_DEVICE_ORDER",
        "HIP_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
    ),
    DATA_VARIABLE,
)
NETWORK_VARIABLES = (
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)


def environment(job: Job, scratch: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a worker, built from an allow-list: keys and tokens never get in.

    Args:
        job: For its number of threads, and whether it needs a network.
        scratch: Home, temporary folder and cache of the worker.
        given: The environment of the run itself.
    """
    names = KEPT_VARIABLES + (NETWORK_VARIABLES if job.network else ())
    kept = without_passwords({name: given[name] for name in names if name in given})
    folders = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    kept |= dict.fromkeys(folders, str(scratch)) | dict.fromkeys(threads, str(job.threads))
    kept |= {
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8:backslashreplace",
    }
    if job.visible is not None or (job.device == "cpu" and not job.gpus):
        kept["CUDA_VISIBLE_DEVICES"] = job.visible or ""
    # Found through the home folder otherwise, which the worker does not have.
    kept[CACHE_VARIABLE] = str(cache_folder())
    # With another home and folder the worker would lose packages that the run itself can import.
    if site.ENABLE_USER_SITE:
        kept["PYTHONUSERBASE"] = site.getuserbase()
    path = [str(Path(part).absolute()) for part in given.get("PYTHONPATH", "").split(os.pathsep) if part]
    if path:
        kept["PYTHONPATH"] = os.pathsep.join(path)
    return kept


def without_passwords(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables but for proxies with a password in their address, which is one with an "@"."""
    return {name: value for name, value in variables.items() if "@" not in value or not name.lower().endswith("_proxy")}
