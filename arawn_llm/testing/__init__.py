"""For tests: simulated providers on loopback, and a backend that needs none."""

from arawn_llm.testing._dialect import Fault, Reply
from arawn_llm.testing._fake import Asked, FakeBackend, use_backend
from arawn_llm.testing._simulator import KEY, Received, Simulator

__all__ = ["KEY", "Asked", "FakeBackend", "Fault", "Received", "Reply", "Simulator", "use_backend"]
