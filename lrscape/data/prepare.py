"""The only code that may download or write a data set."""

from __future__ import annotations

from pathlib import Path

from lrscape.data import tiny_imagenet
from lrscape.data.sources import EMBEDDED, check_name
from lrscape.errors import InputError


def prepare(name: str, data_dir: Path) -> Path:
    """Downloads a TFDS data set and writes it in the format that is read here.

    Args:
        name: as TFDS spells it, such as ``'cifar10'`` or ``'NAME/CONFIG'``.
        data_dir: the TFDS data directory to write to.

    Returns:
        The folder of the prepared version.

    Raises:
        InputError: a name that TFDS does not know, a builder that needs TensorFlow
            where it is not installed, or a download that fails; ``'tiny_imagenet'``,
            which needs no preparing: says how to get it.
    """
    if name == EMBEDDED:
        raise InputError(
            f"dataset={name!r} comes with scikit-learn, and needs no preparing"
        )
    check_name(name)
    if name == tiny_imagenet.NAME:
        raise InputError(
            f"dataset={name!r} is not a TFDS set and is read as it is published. "
            + tiny_imagenet.how_to_get(data_dir)
        )
    import tensorflow_datasets as tfds

    def cannot_build(error: ImportError) -> InputError:
        return InputError(
            f"dataset={name!r} cannot be built: {error}; install what preparing needs "
            "with `pip install 'lrscape[prepare]'`"
        )

    try:
        # array_record can be read example by example, and without TensorFlow.
        builder = tfds.builder(
            name, data_dir=str(data_dir), file_format=tfds.core.FileFormat.ARRAY_RECORD
        )
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise InputError(f"dataset={name!r} is not known to TFDS: {error}") from error
    except ImportError as error:
        raise cannot_build(error) from error
    try:
        builder.download_and_prepare()
    except ImportError as error:
        raise cannot_build(error) from error
    except AssertionError as error:  # so TFDS asks for archives
        manual = data_dir / "downloads" / "manual"
        raise InputError(
            f"dataset={name!r} cannot be downloaded for you: get its archives from its "
            f"publisher, put them into {manual}, and run this again. TFDS says: {error}"
        ) from error
    # TFDS raises plain errors of value for a version or configuration it lacks.
    except (OSError, ValueError, tfds.download.DownloadError) as error:
        raise InputError(
            f"dataset={name!r} could not be downloaded to {data_dir}: {error}"
        ) from error
    return Path(builder.data_path)
