"""The files behind a Hugging Face id: downloaded into the cache, and checked like those of a folder."""

from pathlib import Path

from mechxai.model.checkpoint.errors import LoadingErrors
from mechxai.model.checkpoint.files import Headers, adapter_error, sharded_tensors, stored_tensors


def refuse_adapter(source: str, revision: str | None, name: str) -> None:
    """Refuses an id that holds an adapter; transformers would put it into the model without a word.

    Raises:
        ModelSupportError: names the model that the adapter belongs to.
    """
    path = _downloaded(source, "adapter_config.json", revision)
    if path is not None:
        raise adapter_error(path, name)


def downloaded_tensors(source: str, revision: str | None, name: str) -> Headers | None:
    """Shapes and dtypes of an id's stored tensors, from the headers of its files, which are downloaded.

    Returns:
        None where the id has no safetensors.

    Raises:
        ArtifactError: a file is truncated or damaged, or missing from the repository.
    """
    from transformers.utils.hub import get_checkpoint_shard_files  # noqa: PLC0415 - heavy

    single = _downloaded(source, "model.safetensors", revision)
    if single is not None:
        return stored_tensors(single, name)
    index = _downloaded(source, "model.safetensors.index.json", revision)
    if index is None:
        return None
    with LoadingErrors(name):
        get_checkpoint_shard_files(source, str(index), revision=revision)  # downloads them in parallel
    return sharded_tensors(index, name)


def _downloaded(source: str, file: str, revision: str | None) -> Path | None:
    from transformers.utils import cached_file  # noqa: PLC0415 - heavy

    try:
        path = cached_file(source, file, revision=revision)
    except OSError:  # the repository has no such file, or cannot be reached; from_pretrained names the reason
        return None
    return Path(path) if path else None
