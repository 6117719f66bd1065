"""Needs: what data a recipe must see before it is calibrated, and how its ranges are chosen."""

from dataclasses import dataclass

from memorywam_runtime.errors import InputError

__all__ = ["NEEDS", "Needs", "needs_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one recipe asks of recordings."""

    recipe: str
    observer: str
    """Of activations or memory; weights keep their largest value, by output channel."""
    num_samples: int = 64
    """Decision points."""
    least_samples: int = 8
    """Below, nothing is calibrated."""
    release_samples: int = 32
    """Below, a table is for trying out."""
    least_episodes: int = 12
    """For calibration; those of the other parts of the split do not count."""
    may_be_missing: tuple[str, ...] = ()
    """Cells of the coverage table, with * for any."""
    plateau_change: float = 0.03
    """Scales that change less from half of the samples to all of them have settled."""


NEEDS: dict[str, Needs] = {
    needs.recipe: needs
    for needs in (
        Needs(
            recipe="int8",
            observer="mse",
            # Grippers that hold nothing never move; 91 to 100 lies between two cells that tell.
            may_be_missing=("phase/gripper", "fill/91-100"),
        ),
        # fp8 keeps the precision of small values whatever the range: nothing is gained by clipping.
        *(
            Needs(recipe=recipe, observer="max", may_be_missing=("phase/gripper", "fill/91-100"))
            for recipe in ("fp8", "kv-int8", "kv-fp8")
        ),
    )
}


def needs_of(recipe: str) -> Needs:
    """Return what a recipe needs.

    Raises:
        InputError: no recipe of activations or memory; those that there are are listed.
    """
    if recipe not in NEEDS:
        raise InputError(
            f"found recipe '{recipe}' to calibrate; expected one of {', '.join(NEEDS)}: recipes of "
            "weights alone need no table"
        )
    return NEEDS[recipe]
