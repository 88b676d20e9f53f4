import json
from pathlib import Path

import pytest

from clinbundles.scripts.doctor.code import foreign_code, is_plain

ROOT = Path(__file__).parents[3]
CONFIGS = [p for p in ROOT.glob("bundles/*/configs/*.json") if p.name not in ("metadata.json", "reproduce.json")]


@pytest.mark.parametrize(
    "expression",
    [
        "@network_def.to(@device)",
        "torch.device('cuda:' + os.environ['LOCAL_RANK'] if torch.cuda.is_available() else 'cpu')",
        "[round(@steps * part) for part in (0.7, 0.9)]",
        "lambda batch, device, **kwargs: (batch['latent'].to(device), None)",
        "scripts.polyps.nets.weights.load(@x)",
        "getattr(@network, 'low_net', None)",
        "sys.path.insert(0, @bundle_root)",
    ],
)
def test_references_arithmetic_and_the_known_packages_are_plain(expression: str) -> None:
    assert is_plain(expression, "scripts.polyps")


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('rm -rf /')",
        "os.system('x')",
        "torch.load(@path)",
        "torch.hub.load('a/b', 'c')",
        "monai.utils.os.remove('x')",
        "numpy.core.numeric.pickle.loads(@x)",
        "().__class__.__base__.__subclasses__()",
        "getattr(@network, '__class__')",
        "getattr(torch, @name)",
        "open('/etc/passwd').read()",
        "exec('x = 1')",
        "import subprocess",
        "os.environ['AWS_SECRET']",
        "sys.path.insert(0, '/somewhere')",
        "x = 1",
    ],
)
def test_everything_else_is_listed(expression: str) -> None:
    assert not is_plain(expression, "scripts.polyps")
    assert list(foreign_code({"a": [{"b": f"${expression}"}]}, "scripts.polyps")) == [f"a#0#b: ${expression}"]


def test_classes_of_other_packages_are_listed_and_those_of_the_bundle_are_not() -> None:
    config = {
        "a": {"_target_": "subprocess.run"},
        "b": {"_target_": "scripts.polyps.nets.unet.UNet"},
        "c": {"_target_": "scripts.other.nets.unet.UNet"},
        "d": {"_target_": "Compose", "_desc_": "$not run"},
        "e": {"_target_": "torch.hub.load"},
    }
    lines = list(foreign_code(config, "scripts.polyps"))
    assert lines == [
        "a#_target_: subprocess.run",
        "c#_target_: scripts.other.nets.unet.UNet",
        "e#_target_: torch.hub.load",
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parents[1].name}/{path.stem}")
def test_our_own_configs_run_nothing_else(path: Path) -> None:
    assert list(foreign_code(json.loads(path.read_text()), f"scripts.{path.parents[1].name}")) == []


def test_there_are_configs() -> None:
    assert len(CONFIGS) > 30
