import io
import json
import os
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from clinbundles.scripts.doctor.torchscript import FAMILIES, OF_ATEN, foreign_operators, is_torchscript, refuse_programs

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 2.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class SavesWhenLoaded(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[bool]:
        return (self.training,)

    @torch.jit.export
    def __setstate__(self, state: tuple[bool]) -> None:
        self.training = state[0]
        torch.save([torch.ones(3)], "ran")


class SavesWhenRun(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save([x], "ran")
        return x


class MapsAFile(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("ran", True, 3)


class Prints(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("shown")
        return x


class OfStrangers(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.strangers.twice(x)


@pytest.fixture
def of_strangers() -> Callable[[], nn.Module]:
    """An operator that a library of somebody else has, and a network with it."""
    library = torch.library.Library("strangers", "FRAGMENT")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CPU")
    yield OfStrangers
    library._destroy()


def exported(network: nn.Module, path: Path) -> Path:
    torch.jit.script(network.eval()).save(str(path))
    return path


def written(path: Path, body: str = "", *, files: dict[str, str | bytes] | None = None) -> Path:
    """A file of TorchScript with a line, such as hands write it, at the end of forward, and with more records."""
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(Plain().eval()), stream)
    with zipfile.ZipFile(stream) as source, zipfile.ZipFile(path, "w") as target:
        top = source.namelist()[0].partition("/")[0]
        for name in source.namelist():
            text = source.read(name)
            if name.endswith(".py") and body:
                text = text.replace(b"    return ", f"    {body}\n    return ".encode())
                assert body.encode() in text
            if name.removeprefix(f"{top}/") not in (files or {}):
                target.writestr(name, text)
        for name, more in (files or {}).items():
            target.writestr(f"{top}/{name}", more)
    return path


@pytest.mark.parametrize(
    ("network", "sentence", "runs_at"),
    [
        (SavesWhenLoaded, "would run aten::save", "load"),
        (SavesWhenRun, "would run aten::save", "call"),
        (MapsAFile, "would run aten::from_file", "call"),
        (Prints, "would run print", "call"),
    ],
)
def test_what_acts_is_told_and_not_run_and_acts_where_it_is_loaded(
    network: type[nn.Module],
    sentence: str,
    runs_at: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    file = exported(network(), tmp_path / "model.ts")
    (line,) = foreign_operators(file)
    assert line.startswith(f"{sentence} (code/")
    assert not Path("ran").exists()
    loaded = torch.jit.load(file)
    if runs_at == "call":
        assert not Path("ran").exists()
        loaded(torch.ones(3))
    assert Path("ran").exists() or "shown" in capfd.readouterr().out


def test_an_operator_of_an_unknown_library_is_told(of_strangers: Callable[[], nn.Module], tmp_path: Path) -> None:
    (line,) = foreign_operators(exported(of_strangers(), tmp_path / "model.ts"))
    assert line.startswith("would run strangers::twice (code/")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ('(x).save("ran")', "would run aten::save"),
        ('getattr(x, "save")("ran")', "would run getattr of 'save'"),
        ('hidden = (x).save\n    hidden("ran")', "would run aten::save"),
        ('hidden = torch.save\n    hidden(x, "ran")', "would run aten::save"),
        ('torch.autograd.save(x, "ran")', "would run aten::autograd.save"),
        ('ops.aten.save(x, "ran")', "would run aten::save"),
        ('ops.image.write_file("ran", x)', "would run image::write_file"),
        ('ops.prim.rpc_sync("w", "f", (x,), {})', "would run prim::rpc_sync"),
        ("ops.prim.Print(x)", "would run prim::Print"),
        ("print = 1\n    print(x)", "would run print"),
        ("hidden = print\n    hidden(x)", "would run print"),
        ("for print in [1]:\n      pass", "would run print"),
        ("ops = x\n    hidden = ops.strangers.twice(x)", "would run strangers::twice"),
        ("ops = x\n    hidden = ops", "would run ::"),
        ("fork(x)", "would run fork"),
        ("annotate(__torch__.torch.classes.quantized.LinearPackedParamsBase, x)", "would make __torch__.torch.classes"),
        ("hidden = [torch.neg(y) for y in [x]]", "has ListComp"),
        ("[torch.neg][0](x)", "would call what Subscript gives"),
        ("hidden = lambda y: y", "has Lambda"),
        ("import os", "has Import"),
    ],
)
def test_no_way_of_writing_it_by_hand_gets_by(body: str, sentence: str, tmp_path: Path) -> None:
    lines = list(foreign_operators(written(tmp_path / "model.ts", body)))
    assert any(line.startswith(sentence) for line in lines), lines


@pytest.mark.parametrize("body", ["hidden = torch.add(x, x)", "hidden = (x).add(x)", "hidden = ops.prim.device(x)"])
def test_what_computes_gets_by(body: str, tmp_path: Path) -> None:
    assert list(foreign_operators(written(tmp_path / "model.ts", body))) == []


def test_a_class_of_the_file_does_not_stand_for_one_of_cpp(tmp_path: Path) -> None:
    name = "__torch__.torch.classes.quantized.LinearPackedParamsBase"
    files = {"code/__torch__/torch/classes/quantized.py": "class LinearPackedParamsBase(Module):\n  x : int\n"}
    file = written(tmp_path / "model.ts", f"hidden = annotate({name}, x)", files=files)
    (line,) = foreign_operators(file)
    assert line.startswith(f"would make {name}, a class that is not in the file")


def test_an_argument_called_as_the_constants_are_does_not_stand_for_them(tmp_path: Path) -> None:
    files = {"code/__torch__/more.py": 'def act(CONSTANTS: Tensor) -> int:\n  CONSTANTS.save("ran")\n  return 1\n'}
    (line,) = foreign_operators(written(tmp_path / "model.ts", files=files))
    assert line.startswith("would run aten::save (code/__torch__/more.py")


def test_what_stands_behind_a_class_of_the_file_is_looked_at(tmp_path: Path) -> None:
    files = {"code/__torch__/kinds.py": 'class Kind(Enum):\n  A = "a"\n'}
    file = written(tmp_path / "model.ts", "hidden = __torch__.kinds.Kind.A", files=files)
    assert list(foreign_operators(file)) == []
    file = written(tmp_path / "model.ts", '__torch__.kinds.Kind.A.save("ran")', files=files)
    (line,) = foreign_operators(file)
    assert line.startswith("would run aten::save (code/")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"data.pkl": b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00truetR."}, "would make posix.system, a class"),
        ({"data.pkl": b"\x80\x04\x8c\x05posix\x8c\x06system\x93."}, "has STACK_GLOBAL"),
        ({"bytecode.pkl": b""}, "has bytecode.pkl, which is not looked at"),
        ({"code/more.PY": b""}, "has code/more.PY, which is not looked at"),
    ],
)
def test_lists_and_records_that_no_export_has_are_told(files: dict[str, bytes], sentence: str, tmp_path: Path) -> None:
    lines = list(foreign_operators(written(tmp_path / "model.ts", files=files)))
    assert any(line.startswith(sentence) for line in lines), lines


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"code/__torch__/more.py": "def f(:\n"}, "has a code/__torch__/more.py that cannot be read as TorchScript"),
        ({"code/__torch__/more.py": "x = 1  # said"}, "it has a comment"),
        ({"code/__torch__/more.py": "x = 1\r\n"}, "other characters"),
        ({"code/__torch__/more.py": f"x = {'(' * 10_000}"}, "cannot be read as TorchScript"),
        ({"data.pkl": b"\x80\x02"}, "has a data.pkl that cannot be read"),
        ({"data.pkl": b"\x80\x02\xff"}, "has a data.pkl that cannot be read"),
        ({"DATA.pkl": b"\x80\x02N."}, "has a record twice, or in another case"),
        ({"code/__torch__/more.py": "x = 1\n" * 3_000_000}, "has more than 8 MiB of code"),
    ],
)
def test_what_cannot_be_read_is_refused(files: dict[str, str | bytes], sentence: str, tmp_path: Path) -> None:
    file = written(tmp_path / "model.ts", files=files)
    with pytest.raises(ValueError, match=sentence):
        list(foreign_operators(file))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file = exported(Plain(), tmp_path / "model.ts")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is no whole archive of TorchScript"):
        list(foreign_operators(file))


def test_a_bundle_with_a_program_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    refuse_programs(tmp_path)
    exported(Plain(), tmp_path / "models" / "model.ts")
    refuse_programs(tmp_path)
    exported(SavesWhenRun(), tmp_path / "models" / "other.ts")
    with pytest.raises(ValueError, match=r"models/other\.ts: would run aten::save .*--allow_expressions loads it"):
        refuse_programs(tmp_path)
    (tmp_path / "models" / "other.ts").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"models/other\.ts: is no whole archive of TorchScript"):
        refuse_programs(tmp_path)


@pytest.mark.parametrize("link", ["models", "models/model.ts"])
def test_a_bundle_with_a_link_behind_which_a_program_could_lie_is_refused(link: str, tmp_path: Path) -> None:
    place = tmp_path / "bundle" / link
    place.parent.mkdir(parents=True)
    (tmp_path / "models").mkdir()
    exported(Plain(), tmp_path / "models" / "model.ts")
    refuse_programs(tmp_path / "bundle")
    place.symlink_to(tmp_path / link)
    with pytest.raises(ValueError, match=rf"bundle/{link} is a link .*put a copy there; --allow_expressions"):
        refuse_programs(tmp_path / "bundle")


def test_what_a_config_loads_is_refused_if_it_is_no_torchscript_that_can_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    config = {"ckpt_path": "$@bundle_root + '/net.bin'", "network_def": {"filename_prefix_or_stream": "@ckpt_path"}}
    (tmp_path / "configs" / "inference.json").write_text(json.dumps(config))
    exported(Plain(), tmp_path / "net.bin")
    refuse_programs(tmp_path)
    (tmp_path / "net.bin").write_text("of a format that is not known")
    with pytest.raises(ValueError, match=r"net\.bin: is no whole archive of TorchScript"):
        refuse_programs(tmp_path)
    (tmp_path / "configs" / "inference.json").write_text(json.dumps(config | {"ckpt_path": "/mnt/net.bin"}))
    with pytest.raises(ValueError, match=r"inference\.json would load '/mnt/net\.bin', which is no file of the bundle"):
        refuse_programs(tmp_path)


def test_an_archive_whose_records_cannot_be_listed_is_refused_and_not_taken_for_none(tmp_path: Path) -> None:
    file = exported(SavesWhenRun(), tmp_path / "picture.png")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("elsewhere/more", "x")
    torch.jit.load(file)
    with pytest.raises(ValueError, match=r"picture\.png: is no whole archive of TorchScript"):
        refuse_programs(tmp_path)


def test_torchscript_is_known_by_its_content_under_any_name(tmp_path: Path) -> None:
    shutil.copy(exported(Plain(), tmp_path / "model.ts"), tmp_path / "picture.png")
    torch.save({"weight": torch.ones(3)}, tmp_path / "model.pt")
    (tmp_path / "note.txt").write_text("none")
    (tmp_path / os.fsdecode(b"\xff.txt")).write_text("none")
    names = {path.name for path in tmp_path.iterdir() if is_torchscript(path)}
    assert names == {"model.ts", "picture.png"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: torchvision.models.VisionTransformer(32, 16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8),
        lambda: torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None),
        lambda: nn.LSTM(8, 4),
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 1),
    ],
    ids=["transformer of images", "detector", "recurrent", "transformer"],
)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_networks_of_other_kinds_only_compute(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    assert list(foreign_operators(exported(make(), tmp_path / "model.ts"))) == []


def test_a_traced_network_only_computes(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.ones(1, 1, 8, 8)).save(str(tmp_path / "model.ts"))
    assert list(foreign_operators(tmp_path / "model.ts")) == []


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.center, self.data, self.gradient = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.hash, self.ops, self.partition = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ops = self.ops(x)
        return self.partition(self.hash(self.gradient(self.data(self.center(ops)))))


def test_parts_of_a_network_may_be_called_as_operators_that_compute(tmp_path: Path) -> None:
    assert list(foreign_operators(exported(Named(), tmp_path / "model.ts"))) == []
    torch.jit.trace(Named().eval(), torch.ones(1, 3)).save(str(tmp_path / "model.ts"))
    assert list(foreign_operators(tmp_path / "model.ts")) == []


def test_no_operator_that_is_taken_names_a_file() -> None:
    taken = set()
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, name = schema.name.partition("::")
        if namespace == "aten" and (name in OF_ATEN or name.removesuffix("_") in OF_ATEN or FAMILIES.fullmatch(name)):
            taken.add(name)
            texts = {argument.name for argument in schema.arguments if str(argument.type) == "str"}
            assert not texts & {"filename", "path", "file"}, name
    assert len(taken) > 500
    assert taken.isdisjoint({"save", "from_file", "set_", "wait", "backward", "manual_seed", "_print", "record_stream"})


@pytest.mark.parametrize("has_archive", [False, True])
def test_a_program_in_the_other_format_of_pytorch_is_refused_with_and_without_an_archive_behind_it(
    has_archive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "net.bin"
    torch.jit.save_jit_module_to_flatbuffer(torch.jit.script(SavesWhenRun().eval()), str(file))
    if has_archive:
        with zipfile.ZipFile(exported(Plain(), tmp_path / "plain")) as source, zipfile.ZipFile(file, "a") as target:
            for name in source.namelist():
                target.writestr(name, source.read(name))
    torch.jit.load(file)(torch.ones(3))
    assert Path("ran").exists()
    assert is_torchscript(file)
    with pytest.raises(ValueError, match="does not begin as a zip of PyTorch does"):
        list(foreign_operators(file))
