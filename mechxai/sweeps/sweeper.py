"""Hydra's basic sweeper with a record for every job: waiting jobs and combinations that do not compose included."""

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
from mechxai.sweeps.hydra_checks import check_hydra
from mechxai.sweeps.overrides import composition_error
from mechxai.sweeps.record import WAITING, JobRecord

_BASIC = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"


class RecordingSweeper(Sweeper):
    """Sweeps the product of all choices, as `BasicSweeper` does; every job has a record before the first starts.

    Combinations that do not compose are numbered after those that do, so that the launcher gets all jobs at once.
    """

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None = None) -> None:
        self._batch_size, self._params = max_batch_size, dict(params or {})

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
        parsed = parser.parse_overrides([*(f"{key}={value}" for key, value in self._params.items()), *arguments])
        (combinations,) = BasicSweeper.split_arguments(parsed, None)
        folder = Path(self._master.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self._master, folder / "multirun.yaml")
        jobs = self._recorded(combinations, folder)
        for first in range(0, len(jobs), self._batch_size or max(1, len(jobs))):
            batch = jobs[first : first + self._batch_size] if self._batch_size else jobs
            for job in self._launcher.launch(batch, initial_job_idx=first):
                _ = job.return_value  # raises the job's error

    def _recorded(self, combinations: Sequence[list[str]], folder: Path) -> list[list[str]]:
        """The combinations that compose, recorded as waiting; the others are recorded as failed."""
        composed, refused = [], []
        for combination in combinations:
            config = self._compose(combination, number=len(composed))
            if isinstance(config, ConfigError):
                refused.append((combination, config))
                continue
            JobRecord(len(composed), tuple(combination), WAITING).save(_job_folder(config))
            composed.append(combination)
        for number, (combination, error) in enumerate(refused, start=len(composed)):
            record = JobRecord(number, tuple(combination)).failed(f"ConfigError: {error}")
            record.save(folder / "jobs" / str(number))
        return composed

    def _compose(self, overrides: Sequence[str], *, number: int) -> DictConfig | ConfigError:
        """One job's configuration, or the reason why there is none."""
        try:
            config = self._loader.load_sweep_config(self._master, list(overrides))
            check_hydra(config, [*self._master.hydra.overrides.task, *self._master.hydra.overrides.hydra])
        except ConfigError as error:
            return error
        except (HydraException, OmegaConfBaseException) as error:
            return composition_error(error, overrides)
        with open_dict(config):
            config.hydra.job.num = number
        return config


def _job_folder(config: DictConfig) -> Path:
    """The folder of a job; its name may use what hydra knows only of that job."""
    state = HydraConfig.instance()
    before = state.cfg
    state.set_config(config)
    try:
        return Path(config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
    finally:
        state.cfg = before


@contextmanager
def recording_sweeper() -> Iterator[None]:
    """Makes hydra use `RecordingSweeper` where its configuration says `BasicSweeper`; other sweepers are untouched.

    A plugin would have to be installed under hydra's own package; this lasts as long as the process.

    Yields:
        Nothing.
    """
    classes = Plugins.instance().class_name_to_class
    before = classes[_BASIC]
    classes[_BASIC] = RecordingSweeper
    try:
        yield
    finally:
        classes[_BASIC] = before
