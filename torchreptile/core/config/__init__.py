"""Every setting of a run, as frozen dataclasses: checked at the door, to and from JSON.

The field docstrings are the command line's ``--help``. The defaults are the published Omniglot 5-way
settings (Reptile paper, appendix A).
"""

from torchreptile.core.config.optimization import InnerConfig as InnerConfig
from torchreptile.core.config.optimization import OuterConfig as OuterConfig
from torchreptile.core.config.algorithm import AlgorithmRow as AlgorithmRow
from torchreptile.core.config.algorithm import AlgorithmSettings as AlgorithmSettings
from torchreptile.core.config.algorithm import Form as Form
from torchreptile.core.config.algorithm import Published as Published
from torchreptile.core.config.algorithm_table import algorithm_names as algorithm_names
from torchreptile.core.config.algorithm_table import algorithm_row as algorithm_row
from torchreptile.core.config.network import NetworkConfig as NetworkConfig
from torchreptile.core.config.runtime import EvalConfig as EvalConfig
from torchreptile.core.config.runtime import ExecutionName as ExecutionName
from torchreptile.core.config.runtime import Precision as Precision
from torchreptile.core.config.runtime import RunConfig as RunConfig
from torchreptile.core.config.task import DATASETS as DATASETS
from torchreptile.core.config.task import FUNCTIONS as FUNCTIONS
from torchreptile.core.config.task import Resize as Resize
from torchreptile.core.config.task import TaskConfig as TaskConfig
from torchreptile.core.config.config import DATA as DATA
from torchreptile.core.config.config import MEASUREMENTS as MEASUREMENTS
from torchreptile.core.config.config import Config as Config
