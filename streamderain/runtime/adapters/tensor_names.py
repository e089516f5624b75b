"""Names of the inputs and outputs of networks with their adapters, where runtimes share them."""

FLOWS, VALIDITY, STRENGTH = "flows", "validity", "strength"


def frame_name(frame: int, component: int) -> str:
    """Return the name of the input for a component of a frame of the window, oldest first."""
    return f"frame.{frame}.{component}"


def clean_name(component: int) -> str:
    """Return the name of the output for a derained component."""
    return f"clean.{component}"
