"""Many runs: overrides are checked, jobs run and recorded, and a sweep is summarised in one table."""
