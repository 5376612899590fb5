from .cascade.cascade import Cascade as Cascade
from .cascade.tiers import Tier as Tier
from .cascade.verifier import load_verifier as load_verifier
from .data.readers import read_records as read_records
from .data.records import PerformanceRecord as PerformanceRecord
from .data.records import PreferenceRecord as PreferenceRecord
from .data.sample import generate_sample as generate_sample
from .evaluation.evaluate import evaluate as evaluate
from .policies.threshold import StrongShare as StrongShare
from .policies.threshold import Threshold as Threshold
from .routers.base import Router as Router
from .routers.decision import Decision as Decision
from .routers.decision import Model as Model
from .routers.errors import InputError as InputError
from .routers.errors import RoutelearnError as RoutelearnError
from .routers.fallback import FallbackRouter as FallbackRouter
from .routers.loading import load as load
from .routers.query import Query as Query
from .routers.rules import RulesRouter as RulesRouter
from .training.bert.train import train_bert as train_bert
from .training.frozen.train import train_frozen as train_frozen
from .training.matrix_factorization.config import MatrixFactorizationConfig as MatrixFactorizationConfig
from .training.matrix_factorization.train import train_matrix_factorization as train_matrix_factorization
from .training.similarity.train import train_similarity as train_similarity
from .training.verifier.train import train_verifier as train_verifier

__version__: str
