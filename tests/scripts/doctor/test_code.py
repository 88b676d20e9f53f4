import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from clinbundles.scripts.doctor.code import CLASSES, EXCEPT, NAMES, OURS, TOOLS, foreign_code, is_plain

ROOT = Path(__file__).parents[3]
CONFIGS = sorted(ROOT.glob("bundles/*/configs/*.json"))


def listed(content: Any, **options: Any) -> list[str]:
    return list(foreign_code(content, "polyps_0123abcd", **options))


@pytest.mark.parametrize(
    "expression",
    [
        "@network_def.to(@device)",
        "torch.device('cuda:' + os.environ['LOCAL_RANK'] if torch.cuda.is_available() else 'cpu')",
        "[round(@steps * part) for part in (0.7, 0.9)]",
        "lambda batch, device, **kwargs: (batch['latent'].to(device), None)",
        "getattr(@network, 'low_net', None)",
        "sys.path.insert(0, @bundle_root)",
        "torch.optim.Adam(@network.parameters(), lr=@train#learning_rate)",
        "[{'image': path} for path in sorted(glob.glob(os.path.join(@dataset_dir, '*.nii.gz')))]",
        'f"{@epoch:03d} of {len(@items)}"',
        "@timing()",
        "import sys",
        "lambda image: ImageOps.exif_transpose(image.convert('L'))",
    ],
)
def test_references_arithmetic_and_the_known_names_are_plain(expression: str) -> None:
    assert is_plain(expression)
    assert listed({"a": f"${expression}"}) == []


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
        "getattr(getattr(torch, 'os'), 'system')('x')",
        "[torch][0].os.system('x')",
        "torch",
        "@module.os.system('x')",
        "@module.system('x')",
        "@imports#1.system('x')",
        "@callable('x')",
        "(lambda t: t.os.system('x'))(torch)",
        "[exec for exec in []] or sorted(['x'], key=exec)",
        "(lambda torch: torch)(0) or torch.os.system('x')",
        "torch.utils.cpp_extension.load_inline('a', 'b')",
        "np.memmap('/tmp/x', 'u1', 'w+', 0, (1,))",
        "monai.utils.optional_import('os')[0].system('x')",
        "monai.apps.utils.download_url('file:///etc/passwd', 'x')",
        "monai.transforms.LoadImage('os.system')",
        "torch.nn.functional.importlib",
        "'{0.__class__}'.format(@x)",
        "open('/etc/passwd').read()",
        "exec('x = 1')",
        "import subprocess",
        "from os import system",
        "os.environ['AWS_SECRET']",
        "ImageOps.Image.open('/etc/passwd')",
        "sys.path.insert(0, '/somewhere')",
        "os._exit(0)",
        "x = 1",
        "(x := 1)",
        "'\0'",
        "(" * 500 + ")" * 500,
    ],
)
def test_everything_else_is_listed(expression: str) -> None:
    assert not is_plain(expression)
    assert listed({"a": [{"b": f"${expression}"}]}) == [f"a#0#b: ${expression}"]


def test_a_key_cannot_bring_code_into_a_relative_reference(tmp_path: Path) -> None:
    key = f"a, open('{tmp_path}/ran', 'w').close(), @a"
    content = {"a": {"b": 1}, key: {"b": 2, "c": "$@#b"}}
    assert listed(content) == [f"{key}#c: $@#b"]
    assert listed({"a": {"b": 1, "c": "$@#b"}}) == []
    ConfigParser(content).get_parsed_content(f"{key}::c")
    assert (tmp_path / "ran").exists()  # so MONAI has it


@pytest.mark.parametrize(
    "target",
    [
        "subprocess.run",
        "os.system",
        ".os.system",
        "os..system",
        "open",
        "__import__",
        "run_cmd",
        "download_url",
        "$exec('x')",
        "@name",
        "%name",
        "torch",
        "torch.hub.load",
        "torch.utils.cpp_extension.load_inline",
        "monai.utils.misc.run_cmd",
        "monai.utils.optional_import",
        "monai.transforms.io.array.locate",
        "monai.transforms.Compose.__init__",
        "monai.data.PersistentDataset",
        "PersistentDataset",
        "monai.data.utils.pickle_hashing",
        "monai.data.NibabelWriter",
        "torchvision.io.write_file",
        "other_0123abcd.nets.strided_unet.StridedUNet",
        "polyps_0123abcd.nets.strided_unet.torch",
        "polyps_0123abcd.nets.strided_unet.nn.Module",
        "polyps_0123abcd.scripts.cli.main",
        "clinbundles.engines.tracking.facts.subprocess.run",
        "clinbundles.engines.outputs.files.write_atomically",
        "clinbundles.engines.checkpoint.set_torn_aside",
    ],
)
def test_classes_of_other_packages_and_what_writes_or_runs_anything_are_listed(target: str) -> None:
    assert listed({"a": {"_target_": target}}) == [f"a#_target_: {target}"]


@pytest.mark.parametrize(
    "target",
    [
        "Compose",
        "LoadImaged",
        "monai.networks.nets.BasicUNet",
        "monai.networks.nets.resnet18",
        "torch.nn.parallel.DistributedDataParallel",
        "torchvision.models.segmentation.fcn_resnet50",
        "ignite.metrics.Accuracy",
        "polyps_0123abcd.nets.strided_unet.StridedUNet",
        "clinbundles.nets.weights.load_weights",
    ],
)
def test_classes_of_the_bundle_and_of_what_it_is_built_on_are_not_listed(target: str) -> None:
    assert listed({"a": {"_target_": target}, "b#_target_": target}) == []


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"t": {"_target_": "LoadImaged", "reader": "os.system"}}, "t#reader: os.system"),
        ({"t": {"_target_": "LoadImaged", "reader": ["PILReader", "os.system"]}}, "t#reader#1: os.system"),
        ({"t": {"_target_": "LoadImaged", "reader": "@name"}, "name": "os.system"}, "t#reader: @name"),
        ({"+my_reader": "os.system"}, "my_reader: os.system"),
        ({"reader": {"_target_": "copy.deepcopy", "x": "os.system"}}, "reader#_target_: copy.deepcopy"),
        ({"t": {"_target_": "SaveImaged", "writer": "$'os.system'"}}, "t#writer: $'os.system'"),
        ({"t": {"_target_": "PatchInferer", "merger_cls": "os.system"}}, "t#merger_cls: os.system"),
        ({"r": {"_target_": "NumpyReader", "allow_pickle": True}}, "r#allow_pickle: True"),
        ({"r": {"_target_": "LoadImage", "_mode_": "callable"}}, "r#_mode_: callable"),
        ({"r": {"_target_": "Compose", "_mode_": "debug"}}, "r#_mode_: debug"),
        ({"r": {"_target_": "Compose", "_debug_": True}}, "r#_debug_: True"),
        ({"r": {"_target_": "Compose", "_requires_": "$os.system('x')"}}, "r#_requires_: $os.system('x')"),
        ({"r": {"_target_": "Compose", "_desc_": "$os.system('x')"}}, "r#_desc_: $os.system('x')"),
        ({"imports": ["$import subprocess"]}, "imports#0: $import subprocess"),
        ({"extends": ["train", "../docs/more"]}, "extends#1: ../docs/more"),
        ({"bundle_root": "/mnt/share"}, "bundle_root: /mnt/share"),
        ({"ckpt_path": "/mnt/share/a.ts"}, "ckpt_path: /mnt/share/a.ts"),
        ({"ckpt_path": "$@bundle_root + '/../a.ts'"}, "ckpt_path: $@bundle_root + '/../a.ts'"),
        (
            {"r": {"_target_": "monai.data.load_net_with_metadata", "filename_prefix_or_stream": "/mnt/a.ts"}},
            "r#filename_prefix_or_stream: /mnt/a.ts",
        ),
        ({"a": "$os._exit(0)"}, "a: $os._exit(0)"),
        ({"finalize": ["$os._exit(0)"], "a": "@finalize#0"}, "a: @finalize#0"),
        ({"finalize": ["$os._exit(0)"], "a": "%finalize::0"}, "a: %finalize::0"),
        ({"finalize": ["$os._exit(0)"], "a": "@"}, "a: @"),
    ],
)
def test_arguments_that_would_run_something_are_listed(content: dict[str, Any], line: str) -> None:
    assert listed(content) == [line]


def test_readers_and_writers_of_monai_can_be_named() -> None:
    load = {"_target_": "LoadImaged", "keys": "image", "reader": "@image_reader"}
    save = {"_target_": "SaveImaged", "writer": "NibabelWriter"}
    reader = {"_target_": "NumpyReader", "allow_pickle": False}
    assert listed({"a": load, "b": save, "image_reader": reader, "c": {**load, "reader": "PILReader"}}) == []


def test_a_macro_leads_to_what_is_looked_at_or_is_listed() -> None:
    files = ["configs/train.json"]
    assert listed({"a": "%b", "b": 1, "c": "%configs/train.json::d"}, files=files) == []
    for macro in ("%/tmp/m.json::d", "%configs/other.json::d", "%../configs/train.json", "%configs/train.json"):
        assert listed({"a": macro}, files=files) == [f"a: {macro}"]


def test_what_the_lists_name_is_there() -> None:
    for name in (*CLASSES, *EXCEPT):
        module = import_module(name.rpartition(".")[0])
        rest = name.rpartition(".")[2]
        assert not rest or any(each.startswith(rest) for each in dir(module)), name
    for name in NAMES:
        top, *parts = name.split(".")
        others = {"np": "numpy", "dist": "torch.distributed", "ImageOps": "PIL.ImageOps"}
        thing: Any = import_module(others.get(top, top))
        for part in parts:
            thing = getattr(thing, part)
    for name in TOOLS:
        module = name if ROOT.joinpath(*name.split(".")).with_suffix(".py").is_file() else name.rpartition(".")[0]
        thing = import_module(f"clinbundles.{module}")
        assert module == name or hasattr(thing, name.rpartition(".")[2]), name
    assert all((ROOT / name).is_dir() for name in OURS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parents[1].name}/{path.stem}")
def test_our_own_configs_run_nothing_else(path: Path) -> None:
    assert list(foreign_code(json.loads(path.read_text()), f"{path.parents[1].name}_00000000")) == []


def test_there_are_configs() -> None:
    assert len(CONFIGS) > 30


@pytest.mark.parametrize(
    "content",
    [
        {"extends": "$__import__('os').system('x')"},
        {"a": {"_target_": {"_target_": "copy.deepcopy", "x": "os.system"}, "command": "x"}},
        {"a": {"_target_": "SimpleInferer", "_mode_": {"_target_": "copy.deepcopy", "x": "debug"}}},
        {"a": {"_target_": "monai.inferers.ZarrAvgMerger", "merged_shape": [1, 4, 4], "store": "/home"}},
        {"a": {"_target_": "ignite.handlers.DiskSaver", "dirname": "/home"}},
        {"a": {"_target_": "torchvision.models.resnet18", "weights": "DEFAULT"}},
        {"a": {"_target_": "DenseNet121", "spatial_dims": 2, "pretrained": True}},
    ],
)
def test_what_acts_where_it_is_made_and_what_makes_the_name_of_a_class_are_listed(content: dict) -> None:
    assert listed(content)
    assert not listed({"a": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32]}, "extends": "train.json"})
    assert not listed({"a": {"_target_": "torchvision.models.resnet18", "weights": None}})
