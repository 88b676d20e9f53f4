"""What all steps of an audit of shortcuts share: data, audited model, options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from clinbundles.scripts.bundle import ROOT, open_configs

BUNDLE = ROOT / "bundles" / "covid_xray_transfer"


@dataclass(frozen=True)
class Setting:
    """What all steps of an audit share.

    ``items`` are those of the datalist's splits, with whole paths; ``seen`` is what was trained on, as
    :func:`.training_images.count_seen` gives it; ``outside`` has folders of further images by name.
    """

    dataset_dir: Path
    datalist: Path
    ckpt_dir: Path
    output: Path
    class_names: list[str]
    items: dict[str, list[dict[str, Any]]]
    seed: int
    knobs: dict[str, Any]
    seen: dict[str, Any]
    outside: dict[str, Path]

    @property
    def common(self) -> dict[str, Any]:
        """Options of every run of the bundle."""
        paths = {"dataset_dir": str(self.dataset_dir), "datalist": str(self.datalist)}
        return self.knobs | paths | {"seed": self.seed}

    def parser(self, **overrides: Any) -> ConfigParser:
        """The evaluation's config, to take parts of it."""
        return open_configs(BUNDLE, ["evaluate"], ckpt_path=str(self.ckpt_dir / "model.pt"), **self.common, **overrides)
