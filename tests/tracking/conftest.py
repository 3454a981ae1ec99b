import os

import pytest

from tests.tracking.offline_record import forget_session


@pytest.fixture(scope="module", autouse=True)
def bare_home(tmp_path_factory):
    # a machine that has never seen W&B: no key, no settings, nothing in the environment
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_")) or name == "NETRC"]:
            patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        forget_session()
        yield home
        forget_session()
