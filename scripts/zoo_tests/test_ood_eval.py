"""Unit test of this bundle in the Model Zoo: `ci/unit_tests/test_<name of the bundle>.py`, run in the zoo's root."""

import json
import os
import shutil
import sys
import tempfile
import unittest

import nibabel as nib
import numpy as np
from monai.bundle import ConfigWorkflow

ROOT = "models/ood_eval"
SHAPE = (64, 64, 64)


class TestBundle(unittest.TestCase):
    def setUp(self):
        sys.path.insert(0, ROOT)  # where the bundle's own code lies
        self.dir = tempfile.mkdtemp()
        with open(os.path.join(ROOT, "models/model.json")) as file:
            model = json.load(file)
        generator = np.random.default_rng(0)
        for part in ("imagesTr", "labelsTr"):
            os.makedirs(os.path.join(self.dir, "task", part))
        training = []
        for case in range(2):
            label = np.zeros(SHAPE, np.uint8)
            for value in range(1, len(model["labels"])):
                label[4 * value : 4 * value + 8, 20:44, 20:44] = value
            image = np.stack([generator.normal(0, 30, SHAPE) + 60 * label for _ in model["channels"]], axis=-1)
            files = {}
            for part, values in (("image", np.squeeze(image, -1) if image.shape[-1] == 1 else image), ("label", label)):
                files[part] = f"{part}sTr/case_{case}.nii.gz"
                kind = np.int16 if part == "image" else np.uint8
                nib.save(nib.Nifti1Image(values.astype(kind), np.eye(4)), os.path.join(self.dir, "task", files[part]))
            training.append(files)
        modality = {
            str(number): "CT" if model["modality"] == "ct" else name for number, name in enumerate(model["channels"])
        }
        task = {"name": "Random", "modality": modality, "labels": model["labels"], "training": training, "test": []}
        with open(os.path.join(self.dir, "task/dataset.json"), "w") as file:
            json.dump(task, file)

    def tearDown(self):
        sys.path.remove(ROOT)
        shutil.rmtree(self.dir)

    def run_workflow(self, kind, names, **override):
        workflow = ConfigWorkflow(
            config_file=[os.path.join(ROOT, "configs", name) for name in names],
            workflow_type=kind,
            logging_file=os.path.join(ROOT, "configs/logging.conf"),
            meta_file=os.path.join(ROOT, "configs/metadata.json"),
            bundle_root=ROOT,
            output_dir=os.path.join(self.dir, "answers"),
            **override,
        )
        workflow.initialize()
        if kind is not None:
            self.assertFalse(workflow.check_properties())
        workflow.run()
        workflow.finalize()

    def test_evaluate_infer(self):
        # evaluate.json stands alone and trains nothing
        self.run_workflow(None, ["evaluate.json"], dataset_dir=os.path.join(self.dir, "task"))
        self.assertTrue(os.path.isfile(os.path.join(self.dir, "answers/cases.csv")))
        self.run_workflow("infer", ["inference.json"], dataset_dir=os.path.join(self.dir, "task/imagesTr"))
        found = [name for _, _, names in os.walk(self.dir) for name in names if name.endswith("seg.nii.gz")]
        self.assertEqual(len(found), 2)


if __name__ == "__main__":
    unittest.main()
