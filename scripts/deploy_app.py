"""MONAI Deploy application: a DICOM series in, what a package segments out as DICOM SEG. See docs/distribution.md.

PACKAGE=dist/finetune_msd python scripts/deploy_app.py -i DICOM_FOLDER -o OUTPUT

The package is not given as the model (-m): Deploy would look there for TorchScript alone.
"""

import json
import os
from pathlib import Path

from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application
from monai.deploy.core.domain import Image
from monai.deploy.core.io_type import IOType
from monai.deploy.operators import (
    DICOMDataLoaderOperator,
    DICOMSegmentationWriterOperator,
    DICOMSeriesSelectorOperator,
    DICOMSeriesToVolumeOperator,
    IOMapping,
    MonaiBundleInferenceOperator,
)
from monai.deploy.operators.dicom_seg_writer_operator import SegmentDescription
from pydicom.sr.codedict import codes


class SegmentationApp(Application):
    def compose(self) -> None:
        context: AppContext = Application.init_app_context(self.argv)
        package = Path(os.environ["PACKAGE"])
        model = json.loads((package / "models" / "model.json").read_text(encoding="utf-8"))
        modality = "CT" if model["modality"] == "ct" else "MR"
        rule = {"name": modality, "conditions": {"Modality": modality}}
        segments = [
            SegmentDescription(
                segment_label=name,
                segmented_property_category=codes.SCT.AnatomicalStructure,
                segmented_property_type=codes.SCT.AnatomicalStructure,
                algorithm_name=model["model_name"],
                algorithm_version=json.loads((package / "configs" / "metadata.json").read_text())["version"],
            )
            for value, name in model["labels"].items()
            if value != "0"
        ]
        loader = DICOMDataLoaderOperator(
            self, CountCondition(self, 1), input_folder=Path(context.input_path), name="loader"
        )
        selector = DICOMSeriesSelectorOperator(self, rules=json.dumps({"selections": [rule]}), name="selector")
        volume = DICOMSeriesToVolumeOperator(self, name="volume")
        bundle = MonaiBundleInferenceOperator(
            self,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            app_context=context,
            bundle_path=package,
            name="bundle",
        )
        writer = DICOMSegmentationWriterOperator(
            self, segment_descriptions=segments, output_folder=Path(context.output_path), name="writer"
        )
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, volume, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(volume, bundle, {("image", "image")})
        self.add_flow(selector, writer, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(bundle, writer, {("pred", "seg_image")})


if __name__ == "__main__":
    SegmentationApp().run()
