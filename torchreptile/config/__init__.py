"""Every setting of a run, as frozen dataclasses: checked at the door, to and from JSON.

The field docstrings are the command line's ``--help``. The defaults are the published Omniglot 5-way
settings (Reptile paper, appendix A).
"""

from torchreptile.config.learning import InnerConfig as InnerConfig
from torchreptile.config.learning import OuterConfig as OuterConfig
from torchreptile.config.method import FIT_FUNCTIONS as FIT_FUNCTIONS
from torchreptile.config.method import Activation as Activation
from torchreptile.config.method import AlgorithmName as AlgorithmName
from torchreptile.config.method import MethodConfig as MethodConfig
from torchreptile.config.running import EvalConfig as EvalConfig
from torchreptile.config.running import ExecutionName as ExecutionName
from torchreptile.config.running import Precision as Precision
from torchreptile.config.running import RunConfig as RunConfig
from torchreptile.config.task import DATASETS as DATASETS
from torchreptile.config.task import FUNCTIONS as FUNCTIONS
from torchreptile.config.task import Resize as Resize
from torchreptile.config.task import TaskConfig as TaskConfig
from torchreptile.config.whole import MEASUREMENTS as MEASUREMENTS
from torchreptile.config.whole import Config as Config
from torchreptile.config.whole import setting_names as setting_names
