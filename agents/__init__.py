"""`clrl.agents`: see the modules."""

if __name__ != "clrl.agents":
    raise ImportError(
        "this folder is the package clrl.agents: write 'import clrl.agents', not 'import agents' "
        "(install clrl first: pip install -e .)"
    )
