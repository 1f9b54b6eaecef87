"""Unit test of this bundle in the Model Zoo: `ci/unit_tests/test_<name of the bundle>.py`, run in the zoo's root."""

import os
import shutil
import sys
import tempfile
import unittest

import nibabel as nib
import numpy as np
from monai.bundle import ConfigWorkflow

ROOT = "models/pretrain"
SHAPE = (64, 64, 64)
SMALL = {"roi_size": 64, "feature_size": 12, "window_size": 4, "num_workers": 0, "spacing": [1, 1, 1], "batch_size": 1}


class TestBundle(unittest.TestCase):
    def setUp(self):
        sys.path.insert(0, ROOT)  # where the bundle's own code lies
        self.dir = tempfile.mkdtemp()
        generator = np.random.default_rng(0)
        for patient in range(4):
            folder = os.path.join(self.dir, f"data/Task1/brain/{patient}")
            os.makedirs(folder)
            volumes = {
                "ct": generator.normal(0, 300, SHAPE).astype(np.int16),
                "mr": generator.normal(300, 50, SHAPE).astype(np.int16),
                "mask": np.ones(SHAPE, np.uint8),
            }
            for name, values in volumes.items():
                nib.save(nib.Nifti1Image(values, np.eye(4)), os.path.join(folder, f"{name}.nii.gz"))

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
            run_dir=os.path.join(self.dir, "run"),
            **override,
        )
        workflow.initialize()
        self.assertFalse(workflow.check_properties())
        workflow.run()
        workflow.finalize()

    def test_train_evaluate_infer(self):
        data = os.path.join(self.dir, "data")
        steps = {"max_epochs": 1, "epoch_length": 2, "val_interval": 1}
        self.run_workflow("train", ["train.json"], dataset_dir=data, **SMALL, **steps)
        # the evaluation lies over train.json, so it is a workflow of training
        self.run_workflow("train", ["train.json", "evaluate.json"], dataset_dir=data, **SMALL)
        answers = os.path.join(self.dir, "answers")
        size = {name: SMALL[name] for name in ("roi_size", "feature_size", "window_size")}
        self.run_workflow("infer", ["inference.json"], dataset_dir=data, output_dir=answers, **size)
        self.assertTrue([name for _, _, names in os.walk(answers) for name in names])


if __name__ == "__main__":
    unittest.main()
