"""`clrl.envs`: see the modules."""

if __name__ != "clrl.envs":
    raise ImportError(
        "this folder is the package clrl.envs: write 'import clrl.envs', not 'import envs' "
        "(install clrl first: pip install -e .)"
    )
