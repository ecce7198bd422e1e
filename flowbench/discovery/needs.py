"""What a plugin declares that it needs, held against what is installed."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def missing(needs: Iterable[str]) -> list[str]:
    """The requirements that are not met, as pip takes them; a malformed one is among them."""
    return [need for need in needs if not _is_met(need)]


def _is_met(need: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement  # few plugins need any

    try:
        requirement = Requirement(need)
        if requirement.marker is not None and not requirement.marker.evaluate():
            return True
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except (InvalidRequirement, PackageNotFoundError):
        return False


def cure(unmet: Iterable[str]) -> str:
    """What to type for requirements that are not met."""
    words = " ".join(f"'{need}'" if set(need) & set("<>=!~[; ") else need for need in unmet)
    return f"pip install {words}"
