"""Unit test of this bundle in the Model Zoo: `ci/unit_tests/test_<name of the bundle>.py`, run in the zoo's root."""

import os
import shutil
import sys
import tempfile
import unittest

import nibabel as nib
import numpy as np
from monai.bundle import ConfigWorkflow

ROOT = "models/finetune_brats"
SHAPE = (64, 64, 64)
SMALL = {"roi_size": [64, 64, 64], "feature_size": 12, "window_size": 4, "num_workers": 0}


class TestBundle(unittest.TestCase):
    def setUp(self):
        sys.path.insert(0, ROOT)  # where the bundle's own code lies
        self.dir = tempfile.mkdtemp()
        generator = np.random.default_rng(0)
        for case in range(4):
            patient = f"BraTS2021_{case:05d}"
            folder = os.path.join(self.dir, "data", patient)
            os.makedirs(folder)
            label = np.zeros(SHAPE, np.uint8)
            label[16:48, 16:48, 16:48], label[20:40, 20:40, 20:40], label[24:32, 24:32, 24:32] = 2, 1, 4
            for name in ("flair", "t1", "t1ce", "t2", "seg"):
                values = label if name == "seg" else generator.integers(1, 100, SHAPE).astype(np.int16) + 50 * label
                nib.save(nib.Nifti1Image(values, np.eye(4)), os.path.join(folder, f"{patient}_{name}.nii.gz"))

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
            dataset_dir=os.path.join(self.dir, "data"),
            **override,
        )
        workflow.initialize()
        self.assertFalse(workflow.check_properties())
        workflow.run()
        workflow.finalize()

    def test_train_evaluate_infer(self):
        short = {"max_epochs": 1, "warmup_epochs": 0, "val_interval": 1, "use_checkpoint": False}
        self.run_workflow("train", ["train.json"], num_folds=2, **SMALL, **short)
        # the evaluation lies over train.json, so it is a workflow of training
        self.run_workflow("train", ["train.json", "evaluate.json"], num_folds=2, **SMALL)
        answers = os.path.join(self.dir, "answers")
        self.run_workflow("infer", ["inference.json"], output_dir=answers)
        found = [name for _, _, names in os.walk(answers) for name in names if name.endswith(".nii.gz")]
        self.assertEqual(len(found), 4)


if __name__ == "__main__":
    unittest.main()
