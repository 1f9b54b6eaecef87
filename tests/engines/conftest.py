import sys
from pathlib import Path

# toy_training.py is shared by these tests; pytest's importlib mode does not look beside a test for its imports
sys.path.insert(0, str(Path(__file__).parent))
