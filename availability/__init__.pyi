from .availability import Attempt as Attempt
from .availability import Availability as Availability
from .breaker import BreakerLimits as BreakerLimits
from .breaker import BreakerState as BreakerState
from .breaker import is_failure as is_failure
from .choice import Choice as Choice
from .model_health import ModelStatus as ModelStatus
