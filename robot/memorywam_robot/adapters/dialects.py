"""One port, four dialects: which one a message is of, by its shape, and what answers it."""

import importlib.metadata
import time
from collections.abc import Callable, Mapping
from typing import Any

from memorywam_robot.adapters.dialects_lingbot import LingbotDialect
from memorywam_robot.adapters.dialects_observation import IMAGE_FILES, STATE_KEYS, ObservationReader
from memorywam_robot.adapters.dialects_own import OwnDialect, begins_epoch
from memorywam_robot.adapters.dialects_plain import PlainDialect
from memorywam_robot.adapters.dialects_prompt import begin_episode
from memorywam_robot.adapters.dialects_robomme import RobommeDialect
from memorywam_robot.adapters.serving import DialectOptions, infer_every
from memorywam_robot.adapters.serving_grid import GridFeeder, GridSnapshot, ServedPolicy
from memorywam_robot.adapters.serving_metrics import Stages
from memorywam_runtime.errors import InputError

__all__ = ["DIALECTS", "Conversation", "PolicyService", "dialect_from_message", "is_epoch_begin"]

DIALECTS = ("openpi", "lingbot-va", "robomme", "memorywam")


def dialect_from_message(message: Mapping[str, Any], state_keys: tuple[str, ...] = ()) -> str:
    """Return which dialect a message that is no reset is of.

    Raises:
        InputError: none, or several at once.
    """
    found = []
    if "type" in message:
        found.append("memorywam")
    if "add_buffer" in message:
        found.append("robomme")
    if "obs" in message or "compute_kv_cache" in message:
        found.append("lingbot-va")
    if not found and any(key in message for key in state_keys or STATE_KEYS):
        found.append("openpi")
    if len(found) != 1:
        keys = ", ".join(key[:40] for key in list(message)[:12]) or "none"
        raise InputError(
            f"found a message with keys {keys}, of {' and '.join(found) or 'no known dialect'}; "
            "expected `type` (memorywam), `obs` (lingbot-va), `add_buffer` (robomme), or a joint "
            f"state (openpi): {', '.join(state_keys or STATE_KEYS)}"
        )
    return found[0]


def is_epoch_begin(message: object) -> bool:
    """Return whether what was asked for before this message is void."""
    return isinstance(message, Mapping) and (_is_reset(message) or begins_epoch(message))


def _is_reset(message: Mapping[str, Any]) -> bool:
    """Return whether a message only resets."""
    return message.get("reset") is True and not {"obs", "add_buffer", "type"} & set(message)


class PolicyService:
    """A policy and what is shared by its clients, who come one after the other."""

    def __init__(
        self,
        policy: ServedPolicy,
        options: DialectOptions | None = None,
        *,
        about: Mapping[str, Any] | None = None,
        max_frames: int | None = None,
        stages: Callable[[], Stages] = dict,
    ) -> None:
        """Take a policy.

        Args:
            policy: Nobody else may call it from now on.
            options: What messages cannot say.
            about: More for the metadata: contract hash, instructions.
            max_frames: What memory holds.
            stages: Tells how long each stage took, to who watches; from any thread.

        Raises:
            InputError: options that the contract does not fit.
        """
        self.options = options or DialectOptions()
        self.feeder = GridFeeder(
            policy, repeats_missing=self.options.repeats_missing, max_frames=max_frames
        )
        self.reader = ObservationReader(policy.contract, self.options)
        self.snapshots: dict[str, GridSnapshot] = {}
        self._every = infer_every(self.options, policy.contract)
        self._about = dict(about or {})
        self.stages = stages

    def counters(self) -> dict[str, int]:
        """Return what was counted since the start; only a restored snapshot takes some back."""
        feeder = self.feeder
        return {
            "episodes": feeder.num_episodes,
            "frames_seen": feeder.total_seen + feeder.num_seen,
            "frames_repeated": feeder.total_repeated + feeder.num_repeated,
        }

    def gauges(self) -> dict[str, int | None]:
        """Return how full memory is."""
        return {
            "memory_frames": self.feeder.num_frames,
            "memory_max_frames": self.feeder.max_frames,
        }

    def metadata(self) -> dict[str, Any]:
        """Return what a client is told first."""
        contract = self.feeder.contract
        views, actions = contract.observations, contract.actions
        return self._about | {
            "server": f"memorywam {importlib.metadata.version('memorywam')}",
            "contract": contract.name,
            "dialects": list(DIALECTS),
            "cameras": list(views.cameras),
            "state_dim": actions.state_dim,
            "action_dim": actions.action_dim,
            "action_names": list(actions.names),
            "horizon": actions.horizon,
            "control_hz": views.control_hz,
            "steps_per_image": views.steps_per_image,
            "steps_per_frame": contract.steps_per_frame,
            "infer_every": self._every,
            "repeat_missing": self.options.repeats_missing,
            "on_prompt_change": self.options.on_prompt_change,
            "max_frames": self.feeder.max_frames,
            "image_files": list(IMAGE_FILES),
        }

    def conversation(self) -> "Conversation":
        """Return what answers one client; the one before it is over."""
        return Conversation(self)


class Conversation:
    """All that one client asks; for the thread that owns the policy."""

    def __init__(self, service: PolicyService) -> None:
        self._service = service
        self.void = ""
        """Why nothing can be asked of the episode any more; a reset clears it."""
        self._own = self._new_own()
        self._has_begun = False
        self._name = ""
        self._dialect: PlainDialect | LingbotDialect | RobommeDialect | None = None

    def answer(self, message: object, arrived_ns: int) -> dict[str, Any]:
        """Return the reply to a message.

        Raises:
            InputError: it is of no dialect, of another than the episode's, or does not fit.
            MemorywamError: the policy could not do it.
        """
        if not isinstance(message, Mapping):
            raise InputError(f"found a {type(message).__name__}; expected a map")
        if not self._has_begun:  # a new connection is a new episode, whatever it says first
            self._service.feeder.end()
            self._has_begun = True
        if self.void and not is_epoch_begin(message):
            raise InputError(
                f"the episode is void: {self.void}; expected a reset, a begin or a new connection"
            )
        self.void = ""
        is_reset = _is_reset(message)
        reply = self._reset(message) if is_reset else self._asked(message, arrived_ns)
        return reply | {"memory": self._service.feeder.report()}

    def _reset(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Forget everything; begin an episode if it is said of what."""
        started_ns = time.monotonic_ns()
        self._name, self._dialect, self._own = "", None, self._new_own()
        self._service.feeder.end()
        if "prompt" in message:
            begin_episode(self._service.feeder, message, self._service.options)
        took_ms = (time.monotonic_ns() - started_ns) / 1e6
        return {"reset_finished": True, "reset_time_ms": took_ms}

    def _asked(self, message: Mapping[str, Any], arrived_ns: int) -> dict[str, Any]:
        """Let the episode's dialect answer; its first message says which that is."""
        service = self._service
        name = dialect_from_message(message, service.options.state_keys)
        if name == "memorywam":
            if is_epoch_begin(message):
                self._name, self._dialect = name, None
            self._check_name(name)
            return self._own.answer(message, arrived_ns)
        if name == "openpi" and self._name == "robomme":
            name = "robomme"  # that client asks for actions in openpi's words
        self._check_name(name)
        if self._dialect is None:
            kinds: dict[str, type[PlainDialect | LingbotDialect | RobommeDialect]] = {
                "openpi": PlainDialect,
                "lingbot-va": LingbotDialect,
                "robomme": RobommeDialect,
            }
            self._dialect = kinds[name](service.feeder, service.reader, service.options)
        self._name = name
        return self._dialect.answer(message)

    def _new_own(self) -> OwnDialect:
        """Return our own dialect, with no session."""
        service = self._service
        return OwnDialect(service.feeder, service.reader, service.options, service.snapshots)

    def _check_name(self, name: str) -> None:
        """Refuse a message of another dialect than the episode's."""
        if self._name and self._name != name:
            raise InputError(
                f"found a message of {name} in an episode of {self._name}; expected one dialect "
                "an episode: send a reset first"
            )
