from .availability import Attempt as Attempt
from .availability import Availability as Availability
from .availability import Choice as Choice
from .breaker import BreakerLimits as BreakerLimits
from .breaker import BreakerState as BreakerState
from .breaker import is_failure as is_failure
from .model_health import ModelStatus as ModelStatus
