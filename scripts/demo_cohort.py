"""Make the demo cohort: simulated CT and MRI of deformed copies of one brain. A demonstration, not evidence.

python scripts/demo_cohort.py OUTPUT_DIR [--subjects 16] [--seed 0] [--spacing 3]
"""

import fire

from swinfuse_components.data import make_demo_cohort

if __name__ == "__main__":
    fire.Fire(make_demo_cohort)
