"""Saving volumes whole or not at all, under names of their own."""

import errno
import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.transforms import SaveImaged
from monai.utils import ensure_tuple

from ..engines.files import atomic_path
from .paths import unique_names, volume_stem
from .volumes import open_volume

logger = logging.getLogger(__name__)
_FORMATS = (".nii.gz", ".nii", ".nrrd", ".mha")  # one file each


class AtomicSaveImaged(SaveImaged):
    """MONAI's ``SaveImaged``, but a volume is either complete or not there.

    MONAI tries one writer after the other, and the last may leave a volume that a full disk cut short, without an
    error. This takes the first alone, reads what it has written, and gives it its name then. Arguments are those of
    ``SaveImaged``. MONAI Deploy, which saves by itself, knows what to leave out by ``SaveImage`` in the name.

    Raises:
        ValueError: ``output_ext`` is not one of NIfTI, NRRD, or MetaImage in one file.
        OSError: (when a volume is saved) it cannot be written; names the file.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.saver.output_ext not in _FORMATS:
            raise ValueError(f"output_ext is {self.saver.output_ext!r}: expected one of {', '.join(_FORMATS)}")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item, saver = dict(data), self.saver
        for key in self.key_iterator(item):
            volume = item[key]
            path = Path(saver.folder_layout.filename(**saver.fname_formatter(volume.meta, saver)))
            writer = saver.writers[0](**saver.init_kwargs)
            writer.set_data_array(volume, **saver.data_kwargs)
            writer.set_metadata(volume.meta, **saver.meta_kwargs)
            with atomic_path(path) as temporary:
                written = temporary.with_name(temporary.name + saver.output_ext)  # which tells the format
                try:
                    writer.write(str(written), verbose=False)
                    open_volume(str(written)).read()
                    os.replace(written, temporary)
                except (RuntimeError, ValueError) as error:  # ITK's, and that of a volume cut short
                    raise OSError(errno.EIO, str(error).strip().splitlines()[-1]) from error
                finally:
                    written.unlink(missing_ok=True)
            logger.info("writing: %s", path)
        return item


class OutputNames:
    """Names of output files, unique whatever the inputs are called: ``output_name_formatter`` of ``SaveImaged``.

    :meth:`remember` takes the list of images before, so that ``SaveImaged`` finds their names here.
    """

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def remember(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Give every item's image a name, see :func:`unique_names`; returns copies of the items."""
        self.names = unique_names(str(ensure_tuple(item["image"])[0]) for item in items)
        return [dict(item) for item in items]

    def __call__(self, meta: Mapping[str, Any], saver: Any) -> dict[str, Any]:
        """The file name for an image, as ``SaveImage`` asks for it."""
        path = str((meta or {}).get("filename_or_obj", "image"))
        # SaveImage cuts off what it takes for a suffix: ".100" of a DICOM folder, were it not for the one put here
        return {"subject": self.names.get(path, volume_stem(path)) + ".nii.gz", "idx": None}
