from . import presets as presets
from .grid import shifted_grid as shifted_grid
from .process import FlowMatching as FlowMatching, VariancePreserving as VariancePreserving
from .resize import downscale as downscale, upscale as upscale
from .sampling import sample_scalewise as sample_scalewise, scalewise_stages as scalewise_stages
from .schedule import ScaleSchedule as ScaleSchedule, Stage as Stage
