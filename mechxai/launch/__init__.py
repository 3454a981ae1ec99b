"""From a configuration to finished jobs: overrides are checked, jobs run, recorded and gathered; hydra lives here."""
