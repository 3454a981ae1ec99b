"""Hydra's own sweeper, but a combination that does not compose is a failed job, and jobs that wait are on record."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from mechxai.core.errors import ConfigError
from mechxai.sweeps.overrides import composition_error
from mechxai.sweeps.record import WAITING, JobRecord

_BASIC = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"


class RecordingSweeper(Sweeper):
    """The product of all choices, as `BasicSweeper`; every job has a record before the first begins.

    What does not compose is numbered after what does, so that the launcher gets all jobs in one go.
    """

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None = None) -> None:
        self._most, self._params = max_batch_size, dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Makes the launcher; hydra calls it."""
        self.hydra_context, self.config = hydra_context, config
        self._loader, self._master = hydra_context.config_loader, config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Launches the combinations that compose; hydra calls it."""
        parser = OverridesParser.create(config_loader=self._loader)
        asked = parser.parse_overrides([*(f"{key}={value}" for key, value in self._params.items()), *arguments])
        (combinations,) = BasicSweeper.split_arguments(asked, None)
        folder = Path(self._master.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self._master, folder / "multirun.yaml")
        jobs = self._recorded(combinations, folder)
        for first in range(0, len(jobs), self._most or max(1, len(jobs))):
            batch = jobs[first : first + self._most] if self._most else jobs
            for one in self._launcher.launch(batch, initial_job_idx=first):
                _ = one.return_value  # raises what the job raised

    def _recorded(self, combinations: Sequence[list[str]], folder: Path) -> list[list[str]]:
        """The combinations that compose, on record as not started; the others are on record as failed."""
        good, bad = [], []
        for combination in combinations:
            found = self._composed(combination, number=len(good))
            if isinstance(found, ConfigError):
                bad.append((combination, found))
                continue
            JobRecord(len(good), tuple(combination), WAITING).save(_folder(found))
            good.append(combination)
        for number, (combination, error) in enumerate(bad, start=len(good)):
            record = JobRecord(number, tuple(combination)).failed(f"ConfigError: {error}")
            record.save(folder / "jobs" / str(number))
        return good

    def _composed(self, overrides: Sequence[str], *, number: int) -> DictConfig | ConfigError:
        """One job's configuration, or why there is none."""
        try:
            found = self._loader.load_sweep_config(self._master, list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            return composition_error(error, overrides)
        with open_dict(found):
            found.hydra.job.num = number
        return found


def _folder(config: DictConfig) -> Path:
    """Of a job; its name may hold what hydra knows of the job alone."""
    known = HydraConfig.instance()
    before = known.cfg
    known.set_config(config)
    try:
        return Path(config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
    finally:
        known.cfg = before


@contextmanager
def in_place_of_basic() -> Iterator[None]:
    """Has hydra take `RecordingSweeper` where its configuration says `BasicSweeper`; other sweepers stay as they are.

    A plugin would have to be installed beside MechXAI under hydra's own package; this goes as far as the process.

    Yields:
        Nothing.
    """
    known = Plugins.instance().class_name_to_class
    before = known[_BASIC]
    known[_BASIC] = RecordingSweeper
    try:
        yield
    finally:
        known[_BASIC] = before
