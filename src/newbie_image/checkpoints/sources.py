"""Where models can be had: those with a name, and the files of a repository on Hugging Face or ModelScope.

Asking for a list fetches no weights. ``$HF_ENDPOINT`` names a mirror of Hugging Face, ``$MODELSCOPE_DOMAIN``
another host of ModelScope; a token of ``huggingface-cli login`` or ``$HF_TOKEN`` is used where there is one.
"""

from __future__ import annotations

import difflib
import fnmatch
import json
import os
import re
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from newbie_image.errors import CheckpointError, RequestError

SOURCES: Final = ("huggingface", "modelscope")
# What any repository gives when nothing is said: weights without code, configs, tokenizers, licences.
ANY_FILES: Final = ("*.safetensors", "*.json", "*.model", "LICENSE*", "*/LICENSE*")
_KNOWN: Final = Path(__file__).with_name("models.toml")
_REPOSITORY: Final = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class RemoteModel:
    """A model that can be downloaded.

    Args:
        name: its name, or the last part of its repository.
        about: for people; empty where nothing is known.
        repositories: source → repository.
        files: patterns of the files wanted.
        root: the folder in it that is the model; empty for all of it.
        licence: in a sentence; empty where it is not known before asking.
        licence_page: where to read it.
    """

    name: str
    about: str
    repositories: Mapping[str, str]
    files: Sequence[str]
    root: str = ""
    licence: str = ""
    licence_page: str = ""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository.

    Args:
        path: inside the repository, with ``/``.
        size: bytes.
        sha256: of its content; None where the source does not say it.
        git: its name in git (SHA-1 of header and content); None likewise.
        url: where its bytes are.
    """

    path: str
    size: int
    url: str
    sha256: str | None = None
    git: str | None = None


@dataclass(frozen=True)
class Listing:
    """What would be downloaded.

    Args:
        model: which model.
        source: one of SOURCES.
        repository: its name there.
        revision: what the files belong to: a commit where the source says it.
        files: those wanted, in order of their paths.
        licence, licence_page: to be shown before the first byte.
        headers: for the source's own host only (a token).
    """

    model: RemoteModel
    source: str
    repository: str
    revision: str
    files: tuple[RemoteFile, ...]
    licence: str
    licence_page: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def known_models() -> dict[str, RemoteModel]:
    """The models with a name."""
    entries = tomllib.loads(_KNOWN.read_text(encoding="utf-8"))["model"]
    return {name: _known(name, entry) for name, entry in entries.items()}


def find_model(name: str, source: str = "huggingface") -> RemoteModel:
    """A model by its name, or by its repository as ``owner/name``.

    Raises:
        RequestError: neither; says the near names. Or the source does not have it.
    """
    if source not in SOURCES:
        raise RequestError(f"unknown source {source!r}; choose one of {', '.join(SOURCES)}")
    known = known_models()
    if name in known:
        if source not in known[name].repositories:
            has = ", ".join(known[name].repositories)
            raise RequestError(f"{name} is not known on {source}; take it from --source {has}")
        return known[name]
    if _REPOSITORY.fullmatch(name) and ".." not in name:
        return RemoteModel(name.partition("/")[2], "", {source: name}, ANY_FILES)
    near = difflib.get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)};"
    raise RequestError(f"no model {name!r}; {hint} or give a repository as OWNER/NAME")


def list_files(
    model: RemoteModel,
    source: str = "huggingface",
    *,
    revision: str | None = None,
    patterns: Sequence[str] = (),
) -> Listing:
    """Ask a source for a model's files.

    Args:
        model: from :func:`find_model`.
        source: one of SOURCES.
        revision: branch, tag or commit; None for the newest.
        patterns: instead of the model's own.

    Raises:
        CheckpointError: the source cannot be reached or does not have it, or no file fits.
    """
    ask = _ask_huggingface if source == "huggingface" else _ask_modelscope
    listing = ask(model, model.repositories[source], revision)
    wanted = tuple(patterns) or tuple(model.files)
    files = sorted(
        (file for file in listing.files if any(fnmatch.fnmatchcase(file.path, each) for each in wanted)),
        key=lambda file: file.path,
    )
    if not files:
        raise CheckpointError(
            f"{listing.repository} has none of the files {', '.join(wanted)}; it has "
            f"{', '.join(file.path for file in listing.files[:4]) or 'nothing'} …: say which with --include"
        )
    for file in files:
        inside = PurePosixPath(file.path)
        if inside.is_absolute() or ".." in inside.parts or "\\" in file.path or ":" in file.path:
            raise CheckpointError(
                f"{listing.repository} names a file {file.path!r} outside of it; it is refused"
            )
    return Listing(
        listing.model,
        listing.source,
        listing.repository,
        listing.revision,
        tuple(files),
        listing.licence,
        listing.licence_page,
        listing.headers,
    )


def _known(name: str, entry: Mapping[str, Any]) -> RemoteModel:
    return RemoteModel(
        name,
        entry["about"],
        {source: entry[source] for source in SOURCES if source in entry},
        entry["files"],
        entry.get("root", ""),
        entry["licence"],
        entry["licence_page"],
    )


def _ask_huggingface(model: RemoteModel, repository: str, revision: str | None) -> Listing:
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import build_hf_headers

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    try:
        info = HfApi(endpoint=endpoint).model_info(
            repository, revision=revision or "main", files_metadata=True, timeout=30
        )
    except GatedRepoError:
        raise CheckpointError(gated(endpoint, repository)) from None
    except RevisionNotFoundError:
        raise CheckpointError(
            f"{repository} has no revision {revision!r} on {endpoint}; leave it out"
        ) from None
    except RepositoryNotFoundError:
        raise CheckpointError(
            f"{endpoint} has no model {repository}, or shows it to its owners only; correct the name, "
            "or set HF_TOKEN"
        ) from None
    except Exception as error:  # its http library is its own choice, and has changed before
        raise CheckpointError(
            f"{endpoint} cannot be asked for {repository} ({_one_line(error)}); check the network, set "
            "HF_ENDPOINT to a mirror, or take --source modelscope"
        ) from None
    commit = info.sha or revision or "main"
    files = []
    for entry in info.siblings or []:
        lfs = entry.lfs
        url = hf_hub_url(repository, entry.rfilename, revision=commit, endpoint=endpoint)
        sha256 = None if lfs is None else lfs.sha256
        git = entry.blob_id if lfs is None else None
        files.append(RemoteFile(entry.rfilename, entry.size or 0, url, sha256, git))
    card = getattr(info, "card_data", None)
    said = card.get("license_name") or card.get("license") if card is not None else None
    licence = model.licence or (
        f"the repository says: {said}" if said else "the repository does not say its licence in its card"
    )
    return Listing(
        model,
        "huggingface",
        repository,
        commit,
        tuple(files),
        licence,
        model.licence_page or f"{endpoint}/{repository}",
        {name: value for name, value in build_hf_headers().items() if name.lower() == "authorization"},
    )


def _ask_modelscope(model: RemoteModel, repository: str, revision: str | None) -> Listing:
    domain = os.environ.get("MODELSCOPE_DOMAIN", "www.modelscope.cn").rstrip("/")
    endpoint = domain if "://" in domain else f"https://{domain}"
    at = revision or "master"
    query = urllib.parse.urlencode({"Revision": at, "Recursive": "true"})
    address = f"{endpoint}/api/v1/models/{repository}/repo"
    try:
        with urllib.request.urlopen(f"{address}/files?{query}", timeout=30) as answer:
            content = json.load(answer)
        entries = content["Data"]["Files"]
    except urllib.error.HTTPError as error:
        why = "has no such model or revision" if error.code in (401, 403, 404) else f"answered {error.code}"
        raise CheckpointError(f"{endpoint} {why}: {repository} at {at}; correct the name") from None
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            f"{endpoint} gave no list of files for {repository}; correct the name, or "
            "take --source huggingface"
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"{endpoint} cannot be asked for {repository} ({_one_line(error)}); check the network, or take "
            "--source huggingface"
        ) from None
    files = []
    for entry in entries:
        if entry.get("Type") == "tree":
            continue
        place = urllib.parse.urlencode({"Revision": entry.get("Revision") or at, "FilePath": entry["Path"]})
        sha256 = entry.get("Sha256") or None
        files.append(RemoteFile(entry["Path"], int(entry.get("Size") or 0), f"{address}?{place}", sha256))
    page = f"{endpoint}/models/{repository}"
    licence = model.licence or "the repository's page says its licence"
    return Listing(model, "modelscope", repository, at, tuple(files), licence, model.licence_page or page)


def gated(endpoint: str, repository: str) -> str:
    """What to do about a repository whose owner asks for consent."""
    return (
        f"{repository} is given only to those who accepted its terms: accept them on "
        f"{endpoint}/{repository}, make a token there and set it as HF_TOKEN, or take --source modelscope"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
