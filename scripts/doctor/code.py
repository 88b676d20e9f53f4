"""Code in configs: a config runs what its expressions, imports and classes say.

What stands in the lists below may be named; all else is told. MONAI's own functions put the references into an
expression, so that what is read here is what it evaluates.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Collection, Iterator, Mapping
from pydoc import ErrorDuringImport, locate
from typing import Any

from monai.bundle import ComponentLocator, ConfigParser, ReferenceResolver

from clinbundles.scripts.bundle import ROOT

# Modules whose classes a config may name, and those of them whose functions it may name, too.
CLASSES: tuple[str, ...] = ("monai.data.", "monai.engines.", "monai.handlers.", "monai.inferers.", "monai.losses.")
CLASSES += ("monai.metrics.", "monai.networks.", "monai.optimizers.", "monai.transforms.")
CLASSES += ("torch.nn.", "torch.optim.", "torch.utils.data.", "ignite.handlers.", "ignite.metrics.")
CLASSES += ("torchvision.models.", "torchvision.ops.", "torchvision.transforms.")
FUNCTIONS = ("monai.networks.nets.", "torch.nn.", "torchvision.models.", "torchvision.ops.", "torchvision.transforms.")
# What among them fetches, writes, removes or unpickles files where it is made, runs other code, or calls a server.
EXCEPT: tuple[str, ...] = ("monai.data.csv_saver.", "monai.data.image_writer.", "monai.data.video_dataset.")
EXCEPT += ("monai.data.dataset.PersistentDataset", "monai.data.dataset.CacheNTransDataset", "monai.data.dataset.GDS")
EXCEPT += ("monai.data.dataset.LMDBDataset", "monai.handlers.clearml", "monai.handlers.mlflow", "monai.handlers.trt")
EXCEPT += ("monai.data.dataset.CSVDataset", "monai.data.iterable_dataset.CSVIterableDataset")
EXCEPT += ("monai.losses.perceptual.", "monai.networks.trt", "monai.networks.nets.transchex.")
EXCEPT += ("monai.networks.nets.cell_sam_wrapper.", "torch.utils.data.datapipes.", "torchvision.models._api.")
# Of these modules, whose other classes remove, write or send where they are made, bundles use the named ones.
NAMES_IN = {
    "monai.inferers.": "AvgMerger ControlNetDiffusionInferer ControlNetLatentDiffusionInferer DiffusionInferer "
    "LatentDiffusionInferer PatchInferer SaliencyInferer SimpleInferer SliceInferer SlidingWindowInferer "
    "SlidingWindowInfererAdapt SlidingWindowSplitter",
    "ignite.handlers.": "ConcatScheduler CosineAnnealingScheduler EMAHandler EarlyStopping LRScheduler "
    "LinearCyclicalScheduler ParamGroupScheduler PiecewiseLinear ProgressBar ReduceLROnPlateauScheduler "
    "TerminateOnNan TimeLimit Timer",
}
TARGETS = {"copy.deepcopy", "ignite.metrics.Fbeta", "monai.data.load_net_with_metadata"}
TARGETS |= {
    f"segmentation_models_pytorch.{name}"
    for name in ("DeepLabV3", "DeepLabV3Plus", "FPN", "Linknet", "PSPNet", "Unet", "UnetPlusPlus")
}
# Of this project: what a config may name stands in these, and not in what writes, moves or runs what it is told to.
OURS = ("transforms", "nets", "engines")
TOOLS: tuple[str, ...] = (
    "engines.outputs.files",
    "engines.outputs.claim",
    "engines.outputs.summary",
    "engines.folder_lock",
)
TOOLS += ("engines.weights_card", "engines.tracking.store", "engines.tracking.artifacts", "engines.tracking.facts")
TOOLS += ("engines.checkpoint.set_torn_aside",)
# Arguments that take the name of a class, and MONAI's writers, which one may name there alone.
NAMES_A_CLASS = ("reader", "writer", "merger_cls")
WRITERS = ("ITKWriter", "NibabelWriter", "PILWriter")
# Where else MONAI takes what a part of a config gives, and looks for code under it, or ends or skips by it.
CONTROLS = ("_target_", "_mode_", "_disabled_", "_requires_", "_desc_")
# The values that an argument may have, wherever it is passed on to, and those by which networks fetch weights.
FIXED: dict[str, tuple[Any, ...]] = {"allow_pickle": (False,), "weights_only": (True,), "_debug_": (False,)}
FETCHED: dict[str, tuple[Any, ...]] = dict.fromkeys(("pretrained", "pretrained_backbone"), (None, False))
FETCHED |= dict.fromkeys(("pretrained_url", "weights", "weights_backbone"), (None, False))
FETCHED["encoder_weights"] = (None, "@encoder_weights")
FIXED |= {name: values for name, values in FETCHED.items() if name != "weights"}
NETWORKS = ("monai.networks.", "torchvision.models.", "segmentation_models_pytorch.")

MODULES = {"ImageOps", "dist", "glob", "json", "math", "monai", "np", "numpy", "os", "sys", "torch"}
IMPORTS = {"import sys", "import os", "import torch.distributed as dist", "import math", "import glob", "import json"}
IMPORTS |= {"from PIL import ImageOps"}
# What an expression may name of a module, or without one.
NAMES_OF = {
    "builtins": "abs all any bool dict enumerate float int isinstance len list max min print range reversed round set "
    "sorted str sum tuple zip",
    "dist": "barrier destroy_process_group get_rank get_world_size is_initialized",
    "glob": "escape glob",
    "ImageOps": "exif_transpose",
    "math": "ceil exp floor log pi prod sqrt",
    "monai.data": "list_data_collate load_decathlon_datalist pad_list_data_collate partition_dataset",
    "monai.engines": "default_prepare_batch",
    "monai.handlers": "from_engine",
    "monai.utils": "look_up_option set_determinism",
    "np": "arange array asarray ceil float16 float32 float64 floor int16 int32 int64 int8 linspace mean ones prod "
    "stack uint16 uint8 zeros",
    "os": "getcwd sched_getaffinity",
    "os.path": "basename dirname exists isfile join",
    "torch": "arange argmax as_tensor bfloat16 cat channels_last device exp float16 float32 int64 long mean ones "
    "sigmoid softmax squeeze stack sum tensor uint8 unsqueeze zeros",
    "torch.cuda": "device_count is_available set_device",
    "torch.distributed": "get_rank is_available is_initialized",
    "torch.nn.SyncBatchNorm": "convert_sync_batchnorm",
}
NAMES = {f"{module}.{name}" for module, names in NAMES_OF.items() for name in names.split()}
BUILTINS = frozenset(NAMES_OF["builtins"].split())
# Attributes and methods of what is no module: of texts and lists, of arrays, of engines and networks, of pictures.
ATTRIBUTES_OF = (
    "endswith get items keys lower removesuffix rpartition split startswith strip upper values",
    "abs amax amin argmax bool clamp clamp_min cpu cuda detach device dtype exp flatten float half int item log long "
    "max mean meta min ndim numpy permute reshape shape sigmoid size softmax squeeze sum to transpose "
    "unsqueeze view",
    "dataset epoch feature_channels high_net iteration low_net metrics n_ws named_parameters output param_groups "
    "parameters requires_grad run stage_1 state state_dict to_do write",
    "channels convert draft mode tile",
)
ATTRIBUTES = {name for names in ATTRIBUTES_OF for name in names.split()}
ENVIRONMENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
# What hosts and several processes need; another use of these functions is listed.
STATEMENTS = {
    "sys.path.insert(0, @bundle_root)",
    "dist.init_process_group('nccl' if torch.cuda.is_available() else 'gloo')",
}
# A file that doctor looks at, too, if it is a network.
IN_FOLDER = r"\$@bundle_root \+ '(/\w[\w.-]*)+'"
LAST = "os._exit(0)"  # ends a run, where nothing is left to do, and would end any command that asks for it
NODES: tuple[type[ast.AST], ...] = (
    ast.Constant,
    ast.List,
    ast.Tuple,
    ast.Dict,
    ast.Set,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
)
NODES += (ast.IfExp, ast.Subscript, ast.Slice, ast.Starred, ast.Lambda, ast.arguments, ast.arg, ast.keyword, ast.Call)
NODES += (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.JoinedStr)
NODES += (ast.FormattedValue, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context)
LOCATOR = ComponentLocator()
REFERENCES = "__local_refs"  # what MONAI puts in the place of an "@"


def foreign_code(content: Any, own: str, *, files: Collection[str] = ()) -> Iterator[str]:
    """List what a config would run beside MONAI, torch, ignite and the bundle's own code, of what is named above.

    Args:
        content: of the config, or of the metadata that its expressions refer to.
        own: name of the package that holds the bundle's code, such as ``NAME_1234abcd``.
        files: configs that are looked at, too, and so may be named in a macro, such as ``configs/train.json``.

    Yields:
        "id: text", an expression, a macro, an import, a class or an argument a line.
    """
    for key, value, parent in leaves(content):
        name = re.sub(r"(::\d+)+$", "", key).rpartition("::")[2]
        if isinstance(value, Mapping | list):  # where one value stands, and where a part of a config could make it
            plain = name not in (*CONTROLS, *FIXED)
        elif name == "_target_":
            names_a_class = key.rpartition("::")[0].endswith(NAMES_A_CLASS)
            plain = _is_known_target(value, own) and not (names_a_class and _is_function(value))
        elif name == "_mode_":
            plain = value == "default" or (value == "callable" and _is_function(parent.get("_target_")))
        elif name in FIXED:
            plain = value in FIXED[name]
        elif name == "weights" and value not in FETCHED[name] and _takes_weights(parent):
            plain = False
        elif not isinstance(value, str):
            plain = True
        elif key.partition("::")[0] == "extends":  # a file beside it
            plain = re.fullmatch(r"\w[\w.-]*", value) is not None
        elif name == "filename_prefix_or_stream":  # of TorchScript, which is a program
            plain = value == "@ckpt_path"
        elif key == "ckpt_path":
            plain = re.fullmatch(IN_FOLDER, value) is not None
        elif key == "bundle_root":
            plain = value in (".", "$os.getcwd()")
        elif name.endswith(NAMES_A_CLASS):
            is_reference = value.startswith("@") and value.endswith(NAMES_A_CLASS)
            plain = is_reference or value in WRITERS or _is_known_target(value, own)
        else:
            plain = _is_plain_text(key, value, files)
        if not plain:
            yield f"{key.replace('::', '#')}: {value}"


def is_plain(expression: str) -> bool:
    """Say whether an expression stays within arithmetic, references and the names above.

    Args:
        expression: behind its "$".
    """
    if expression.strip() in IMPORTS | STATEMENTS:
        return True
    try:
        text = ReferenceResolver.normalize_id(f"${expression}")
        text = ReferenceResolver.update_refs_pattern(text, ReferenceResolver.match_refs_pattern(text))
        tree = ast.parse(text[1:].strip(), mode="eval").body
        bound = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        bound |= {n.id for node in ast.walk(tree) if isinstance(node, ast.comprehension) for n in _names(node.target)}
        if any(name in MODULES or name.startswith("__") or hasattr(builtins, name) for name in bound):
            return False
        return _is_plain_node(tree, bound | BUILTINS)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_plain_text(key: str, value: str, files: Collection[str]) -> bool:
    """Whether a text runs nothing but what is named above, and neither refers to what ends a run nor to everything."""
    if value[:1] not in ("$", "%", "@"):
        return True
    if value == f"${LAST}" and re.fullmatch(r"finalize::\d+", key):
        return True
    try:
        text = ConfigParser.resolve_relative_ids(key, value)
    except ValueError:
        return False
    if text[0] == "%":
        path, name = ConfigParser.split_path_id(text[1:])
        return (path in files or not path) and name.partition("::")[0] not in ("", "finalize")
    tops = {reference.partition("::")[0] for reference in ReferenceResolver.match_refs_pattern(text)}
    return not tops & {"", "finalize"} and (text[0] == "@" or is_plain(text[1:]))


def _is_plain_node(node: ast.AST, names: Collection[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.Attribute):
        dotted = ast.unparse(node)
        if dotted.partition(".")[0] in MODULES:
            dotted = re.sub("^numpy", "np", dotted)
            return dotted in NAMES or (dotted.startswith(("torch.nn.", "torch.optim.")) and _is_known_class(dotted))
        return node.attr in ATTRIBUTES and _is_plain_node(node.value, names)
    if isinstance(node, ast.Subscript):
        if _is_reference(node):
            return True
        if ast.unparse(node.value) == "os.environ":
            return isinstance(node.slice, ast.Constant) and node.slice.value in ENVIRONMENT
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
        name = node.args[1] if len(node.args) > 1 else None
        is_named = isinstance(name, ast.Constant) and name.value in ATTRIBUTES
        return is_named and not node.keywords and all(_is_plain_node(each, names) for each in node.args)
    if isinstance(node, ast.Call):
        is_builtin = isinstance(node.func, ast.Name) and node.func.id in BUILTINS
        is_asked = _is_reference(node.func) and not node.args and not node.keywords
        if not (is_builtin or is_asked or isinstance(node.func, ast.Attribute)):
            return False
    return isinstance(node, NODES) and all(_is_plain_node(each, names) for each in ast.iter_child_nodes(node))


def _is_reference(node: ast.AST) -> bool:
    is_taken = isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == REFERENCES
    return is_taken and isinstance(node.slice, ast.Constant)  # type: ignore[attr-defined]


def _names(node: ast.AST) -> Iterator[ast.Name]:
    return (each for each in ast.walk(node) if isinstance(each, ast.Name))


def _takes_weights(parent: Any) -> bool:
    """Whether a part of a config is a network, which may fetch its weights."""
    return isinstance(parent, Mapping) and str(parent.get("_target_")).startswith(NETWORKS)


def _is_function(target: Any) -> bool:
    return isinstance(target, str) and target.rpartition(".")[2][:1].islower()


def _is_known_target(target: Any, own: str) -> bool:
    """Whether MONAI would find a class or function that may be named, or nothing else, under a target."""
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        return False
    for package in (f"{own}.", "clinbundles."):
        if target.startswith(package):
            return _is_ours(target.removeprefix(package).split("."))
    if "." in target or target in TARGETS:
        return target in TARGETS or _is_known_class(target)
    modules = LOCATOR.get_component_module_name(target) or []
    modules = [modules] if isinstance(modules, str) else modules
    return bool(modules) and all(_is_known_class(f"{module}.{target}") for module in modules)


def _is_ours(parts: list[str]) -> bool:
    """Whether a module of this project defines a name: what it imports is found under its name, too."""
    *module, name = parts
    file = ROOT.joinpath(*module).with_suffix(".py") if module else ROOT
    if parts[0] not in OURS or {".".join(module), ".".join(parts)} & set(TOOLS) or not file.is_file():
        return False
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name for node in body)


def _is_known_class(dotted: str) -> bool:
    """Whether a name leads to a class, or a function, that is at home in one of the modules above."""
    if not dotted.startswith(CLASSES) or "._" in dotted:
        return False
    try:
        thing = locate(dotted)
    except ErrorDuringImport:
        return False
    home = f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', None)}"
    allowed = CLASSES if isinstance(thing, type) else FUNCTIONS
    if not home.startswith(allowed) or home.startswith(EXCEPT):
        return False
    listed = [names.split() for module, names in NAMES_IN.items() if home.startswith(module)]
    return all(home.rpartition(".")[2] in names for names in listed)


def leaves(content: Any, key: str = "", parent: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """Yield the id, as MONAI has it, the value and the parent of all that is neither a list nor an object.

    A list or an object is given, too, where it stands for one value that MONAI acts on.
    """
    if isinstance(content, Mapping):
        for name, value in content.items():
            inside = f"{key}::{name}" if key else ReferenceResolver.normalize_id(name).removeprefix("+")
            if isinstance(value, Mapping | list) and name in (*CONTROLS, *FIXED):
                yield inside, value, content
            yield from leaves(value, inside, content)
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from leaves(value, f"{key}::{number}" if key else str(number), content)
    else:
        yield key, content, parent
