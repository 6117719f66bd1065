"""Small recordings of a policy that acts at random, on the tiny bundle's contract."""

from pathlib import Path

import numpy as np
import pytest

from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.observation import Observation
from memorywam_runtime.recording import Ending, Event, Header, Observed, Provenance, Sent
from memorywam_runtime.recordings.recording_messages import (
    SCHEMA_VERSION,
    StartMessage,
    time_from_ns,
)

NUM_EPISODES = 24
MS = 1_000_000


class Writer:
    """Writes episodes that a bundle's policy could have been given."""

    def __init__(self, bundle: Path):
        self.manifest = read_manifest(bundle)
        self.contract = self.manifest.contract

    def events(self, num_frames: int, seed: int, image_of=None, state_of=None) -> list[Event]:
        """Return an episode that is observed on the grid and nowhere else."""
        contract = self.contract
        rng = np.random.default_rng(seed)
        stride = contract.observations.steps_per_image
        last = (num_frames - 1) * contract.steps_per_frame
        events: list[Event] = []
        for step in range(last + 1 if num_frames else 0):
            if step:
                action = rng.standard_normal(contract.actions.action_dim)
                events.append(Sent(step=step, action=action, received_ns=step * MS))
            if step % stride:
                continue
            images = {
                camera: rng.integers(0, 256, (24, 20, 3), np.uint8)
                for camera in contract.observations.cameras
            }
            if image_of is not None:
                images = {name: image_of(name, step) for name in images}
            state = rng.standard_normal(contract.actions.state_dim)
            state[[unit == "fraction" for unit in contract.actions.units]] = 0.5
            state = state if state_of is None else state_of(step, state)
            seen = Observation(images=images, state=state, step=step)
            events.append(Observed(observation=seen, captured_ns=step * MS, received_ns=step * MS))
        return events

    def write(
        self,
        folder: Path,
        name: str,
        num_frames: int = 8,
        *,
        seed: int = 0,
        instruction: str = "random",
        contract_hash: str | None = None,
        max_steps: int | None = None,
        **how,
    ) -> Path:
        """Write an MCAP file."""
        from memorywam_runtime.recordings.recording_mcap import McapRecorder

        contract, actions = self.contract, self.contract.actions
        header = Header(
            instruction=instruction,
            seed=seed,
            max_steps=max_steps or num_frames * contract.steps_per_frame,
            control_hz=contract.observations.control_hz,
            cameras=contract.observations.cameras,
            state_dim=actions.state_dim,
            action_dim=actions.action_dim,
            robot="sim:random",
        )
        made = Provenance(
            contract_hash=contract_hash or self.manifest.contract_hash,
            checkpoint_sha256=self.manifest.source.sha256,
            manifest_sha256="e" * 64,
            backend="ort",
            num_threads=1,
            num_denoising_steps=contract.conventions.num_steps,
            hidden=(),
            versions=(),
        )
        start = StartMessage(
            schema_version=SCHEMA_VERSION,
            header=header,
            provenance=made,
            monotonic=time_from_ns(0),
            wall=time_from_ns(1_750_000_000 * 1_000_000_000),
        )
        events = self.events(num_frames, seed, **how)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.mcap"
        with path.open("wb") as stream:
            recorder = McapRecorder(stream, start)
            for number, event in enumerate(events, 1):
                recorder.write(number, event)
                if number % 40 == 0:
                    recorder.flush()
            ending = Ending(
                success="yes", remark="", num_steps=0, num_frames=num_frames, num_dropped=0,
                memory_digest="",
            )  # fmt: skip
            recorder.finish(len(events) + 1, ending, len(events) * 4 * MS)
        return path


@pytest.fixture(scope="session")
def calibration_of(tiny_bundle, recordings):
    """Calibrate on these recordings, once for each choice of options. Read only."""
    # Imported here: it loads torch, and some tests need none.
    from memorywam_calibration.calibrate import Options, calibrated

    found = {}

    def calibration(**chosen):
        options = Options(num_samples=16, **chosen)
        key = repr(options)
        if key not in found:
            found[key] = calibrated(tiny_bundle, recordings, options)
            assert found[key].table is not None
        return found[key]

    return calibration


@pytest.fixture(scope="session")
def calibration(calibration_of):
    """What 16 decision points give, with nothing chosen otherwise."""
    return calibration_of()


@pytest.fixture(scope="session")
def writer(tiny_bundle) -> Writer:
    pytest.importorskip("mcap", reason="needs the extra memorywam[record]")
    return Writer(tiny_bundle)


@pytest.fixture(scope="session")
def recordings(writer: Writer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough episodes for a table, of 9 to 12 frames. Read only."""
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(NUM_EPISODES):
        writer.write(folder, f"episode-{number:02d}", 9 + number % 4, seed=number)
    return folder
