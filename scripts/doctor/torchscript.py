"""Programs in TorchScript: what a network file would run, read from its archive without loading it.

A file of TorchScript is a program, and parts of it run the moment that it is loaded. What stands in the lists below
computes; all else is told, such as what reads or writes files.
"""

from __future__ import annotations

import ast
import io
import pickletools
import re
import tokenize
from collections.abc import Collection, Iterator, Set
from pathlib import Path

import torch

from clinbundles.scripts.doctor.files import exported_networks, files_of, strange_links

# Operators of aten that only compute, as PyTorch names them; "_" behind one is the same in place.
ARITHMETIC = (
    "abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr angle asin asinh atan atan2 atanh baddbmm "
    "bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor bmm cdist ceil clamp "
    "clamp_max clamp_min clip complex conj copysign cos cosh cov cross cummax cummin cumprod cumsum deg2rad det diff "
    "digamma dist div divide dot einsum erf erfc erfinv exp exp2 expm1 fix float_power floor floor_divide floordiv "
    "fmax fmin fmod frac gcd gradient hypot imag inner inverse kron lcm lerp lgamma log log10 log1p log2 logaddexp "
    "logaddexp2 logcumsumexp logit logsumexp matmul mathremainder matrix_exp maximum minimum mm mul multiply mv "
    "nan_to_num neg negative outer pinverse polar positive pow rad2deg real reciprocal remainder round rsqrt rsub "
    "sgn sigmoid sign signbit sin sinc sinh sqrt square sub subtract svd tan tanh tensordot trapezoid true_divide "
    "trunc vdot view_as_complex view_as_real xlogy"
)
COMPARISONS = (
    "all allclose any argmax argmin argsort argwhere bincount bucketize count_nonzero eq equal ge greater "
    "greater_equal gt heaviside histc histogram isclose isfinite isin isinf isnan isneginf isposinf kthvalue le less "
    "less_equal logical_and logical_not logical_or logical_xor lt masked_select max mean median min mode msort "
    "nanmean nanmedian nanquantile nansum ne nonzero nonzero_numpy norm not_equal prod quantile searchsorted sort "
    "std std_mean sum topk unique_consecutive unique_dim _unique2 var var_mean amax amin aminmax where"
)
SHAPES = (
    "adjoint alias as_strided as_tensor atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors broadcast_to "
    "cartesian_prod cat chunk clone column_stack combinations concat concatenate contiguous copy detach diag "
    "diag_embed diagflat diagonal dsplit dstack expand expand_as flatten flip fliplr flipud full full_like arange "
    "empty empty_like eye fill fill_diagonal gather hsplit hstack index index_add index_copy index_fill index_put "
    "index_reduce index_select linspace logspace masked_fill masked_scatter meshgrid moveaxis movedim narrow "
    "new_empty new_full new_ones new_zeros numpy_T ones ones_like permute ravel repeat repeat_interleave reshape "
    "reshape_as resolve_conj resolve_neg roll rot90 row_stack scalar_tensor scatter scatter_add scatter_reduce select "
    "select_scatter slice slice_scatter split split_with_sizes squeeze stack sum_to_size swapaxes swapdims t take "
    "take_along_dim tensor tensor_split tile trace transpose tril tril_indices triu triu_indices type_as unbind "
    "unflatten unfold unsafe_chunk unsafe_split unsqueeze view view_as vsplit vstack zero zeros zeros_like T H mT mH "
    "resize to_padded_tensor"
)
NETWORKS = (
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d affine_grid_generator alpha_dropout avg_pool1d avg_pool2d avg_pool3d batch_norm bilinear "
    "binary_cross_entropy binary_cross_entropy_with_logits celu channel_shuffle col2im constant_pad_nd conv1d conv2d "
    "conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution "
    "cosine_embedding_loss cosine_similarity cross_entropy_loss ctc_loss dropout elu embedding embedding_bag "
    "feature_alpha_dropout feature_dropout fractional_max_pool2d gelu glu grid_sampler grid_sampler_2d "
    "grid_sampler_3d group_norm gru gru_cell hardshrink hardsigmoid hardswish hardtanh hinge_embedding_loss "
    "huber_loss im2col instance_norm kl_div l1_loss layer_norm leaky_relu linear log_sigmoid log_softmax lstm "
    "lstm_cell margin_ranking_loss max_pool1d max_pool2d max_pool1d_with_indices max_pool2d_with_indices max_pool3d "
    "max_pool3d_with_indices max_unpool2d max_unpool3d mish mse_loss nll_loss nll_loss2d nll_loss_nd one_hot pad "
    "pairwise_distance pixel_shuffle pixel_unshuffle poisson_nll_loss prelu reflection_pad1d reflection_pad2d "
    "reflection_pad3d relu relu6 renorm replication_pad1d replication_pad2d replication_pad3d rms_norm rnn_relu "
    "rnn_tanh rrelu scaled_dot_product_attention selu silu smooth_l1_loss soft_margin_loss softmax softplus "
    "softshrink stft istft threshold triplet_margin_loss _weight_norm bernoulli exponential multinomial normal pdist "
    "poisson rand rand_like randint randint_like randn randn_like randperm random uniform "
    "_native_multi_head_attention _nested_tensor_from_mask _nested_tensor_from_mask_left_aligned "
    "_transformer_encoder_layer_fwd"
)
# Of numbers, texts, lists and tables, and the type, device and size of tensors.
VALUES = (
    "Bool Complex ComplexImplicit Delete Float FloatImplicit Int IntImplicit ScalarImplicit __and__ __contains__ "
    "__derive_index __getitem__ __is__ __isnot__ __lshift__ __not__ __or__ __range_length __round_to_zero_floordiv "
    "__rshift__ __xor__ _infer_size _list_to_tensor _set_item _shape_as_tensor _size_if_not_equal _tensor_to_list "
    "_unwrap_optional append bin can_cast capitalize center chr clear count cpu cuda data degrees device dict dim "
    "divmod element_size endswith expandtabs extend fabs factorial find format gamma get get_device hash hex index "
    "insert is_autocast_cpu_enabled is_autocast_enabled is_complex is_contiguous is_floating_point is_grad_enabled "
    "is_nonzero is_scripting is_signed isalnum isalpha isdecimal isdigit isidentifier islower isnumeric isprintable "
    "isspace istitle isupper item items join keys len list ljust lower lstrip numel oct ord partition percentFormat "
    "pop popitem promote_types radians range remove replace requires_grad_ result_type reverse rfind rindex rjust "
    "rpartition rsplit rstrip set_grad_enabled setdefault size sorted splitlines startswith storage_offset str "
    "stride strip swapcase title to update upper values warn zfill"
)
# Families of many operators, each of which computes.
FAMILIES = re.compile(r"(fft|linalg|special)_\w+|_?upsample_(nearest|linear|bilinear|bicubic|trilinear|lanczos)\w+")
OF_ATEN = frozenset(f"{ARITHMETIC} {COMPARISONS} {SHAPES} {NETWORKS} {VALUES}".split())
NAMESPACES = {
    "prim": "EnumName EnumValue ModuleContainerIndex NumToTensor RaiseException StringIndex TupleIndex TupleUnpack "
    "Uninitialized abs data device dtype is_cpu is_cuda is_meta is_mkldnn is_mps is_nested is_quantized is_sparse "
    "is_sparse_csr is_vulkan is_xla is_xpu itemsize layout max min name nbytes rangelist requires_grad shape tolist "
    "type unchecked_cast unchecked_unwrap_optional value",
    "torchvision": "box_iou_rotated deform_conv2d nms ps_roi_align ps_roi_pool roi_align roi_pool",
}
OF_NAMESPACE = {namespace: frozenset(names.split()) for namespace, names in NAMESPACES.items()}
# What the language has without a module, and its types.
WORDS = (
    "abs all annotate any bin bool chr complex dict divmod enumerate float getattr hasattr hex inf infj int "
    "isinstance len list max min nan nanj oct ord pow range rangelist round sorted str sum tuple unchecked_cast "
    "uninitialized zip Any Capsule Device Dict Enum Final Generator Interface Layout List MemoryFormat Module "
    "ModuleInterface NamedTuple NoneType Optional QScheme ScalarType Storage Tensor Tuple Union number "
    "__annotations__ __buffers__ __parameters__"
)
BUILTINS = frozenset(WORDS.split())
# Of Python's syntax, what TorchScript is written in.
NODES: tuple[type[ast.AST], ...] = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.keyword)
NODES += (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Return, ast.Pass, ast.Assert, ast.Raise)
NODES += (ast.If, ast.For, ast.While, ast.Break, ast.Continue, ast.With, ast.withitem)
NODES += (ast.Call, ast.Attribute, ast.Name, ast.Subscript, ast.Slice, ast.Starred, ast.Constant)
NODES += (ast.List, ast.Tuple, ast.Dict, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.IfExp)
NODES += (ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context)
# What the lists of values may name beside classes of the file: containers and tensors.
GLOBALS = re.compile(
    r"collections OrderedDict|torch\.jit\._pickle (build_\w+list|restore_type_tag)|torch (\w+Storage|device)"
    r"|torch\._utils _rebuild_(tensor_v2|qtensor|sparse_tensor|parameter)"
)
NATIVE = "__torch__.torch.classes"  # classes of C++, whatever the file calls so
CODE, LISTS = re.compile(r"code/.+\.py"), re.compile(r"(data|constants|traced_inputs)\.pkl|code/.+\.debug_pkl")
DATA = re.compile(
    r"(data|constants|traced_inputs|extra)/.+|version|byteorder|\.data/(serialization_id|version)|\.format_version"
    r"|\.storage_alignment"
)
MAX_BYTES = 8 * 2**20  # of code and lists, without the tensors
ZIP, FLATBUFFER = b"PK\3\4", b"PTMF"  # a file's first bytes, and the next ones of a program in another format
NO_ARCHIVE = (RuntimeError, AttributeError)  # of PyTorch's reader; the latter where a file's name is no text
PRINTABLE = re.compile(rb"[\n\x20-\x7e]*")  # which Python and TorchScript read alike


def is_torchscript(path: Path) -> bool:
    """Say whether PyTorch would take a file, whatever its name, for TorchScript."""
    if path.suffix.lower() == ".ts" or _head(path)[4:] == FLATBUFFER:
        return True
    try:
        reader = torch._C.PyTorchFileReader(str(path))
    except NO_ARCHIVE:
        return False
    return any(reader.has_record(name) for name in ("constants.pkl", "model.json"))  # type: ignore[attr-defined]


def foreign_operators(path: Path) -> Iterator[str]:
    """List what a TorchScript file would run, or make, beside what computes.

    The archive is read by PyTorch's own reader, so that what is read here is what it would load.

    Args:
        path: the file.

    Yields:
        "would run aten::save (code/__torch__.py, line 9)", an operator, a class, a word or an unknown record a line.

    Raises:
        ValueError: the file is no such archive, or its code or its lists cannot be read.
    """
    if (head := _head(path))[:4] != ZIP or head[4:] == FLATBUFFER:  # PyTorch would not read the archive behind it
        raise ValueError("is no whole archive of TorchScript (it does not begin as a zip of PyTorch does)")
    try:
        reader = torch._C.PyTorchFileReader(str(path))
        names = reader.get_all_records()
        readable = [name for name in names if CODE.fullmatch(name) or LISTS.fullmatch(name)]
        if sum(reader.get_record_size(name) for name in readable) > MAX_BYTES:
            raise ValueError(f"has more than {MAX_BYTES / 2**20:.0f} MiB of code, which is not looked at")
        records = {name: reader.get_record(name) for name in readable}
    except NO_ARCHIVE as error:
        reason = str(error).splitlines()[0].partition(": . ")[0]
        raise ValueError(f"is no whole archive of TorchScript ({reason})") from error
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError("has a record twice, or in another case of its letters")
    trees = {name: _parsed(name, text) for name, text in records.items() if CODE.fullmatch(name)}
    own = {
        f"{name.removeprefix('code/').removesuffix('.py').replace('/', '.')}.{node.name}"
        for name, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    members = {"__new__"} | {each for tree in trees.values() for each in _members(tree)}
    told: dict[str, str] = {}
    for name in names:
        if name in trees:
            for what, line in _in_code(trees[name], own, members):
                told.setdefault(what, f"{what} ({name}, line {line})")
        elif name in records:
            for what in _in_list(name, records[name], own):
                told.setdefault(what, f"{what} ({name})")
        elif not DATA.fullmatch(name):
            told[name] = f"has {name}, which is not looked at"
    yield from told.values()


def refuse_programs(folder: Path, *others: Path) -> None:
    """Refuse a bundle that has a file of TorchScript which does more than compute.

    Args:
        folder: of the bundle.
        others: files that it is to load besides.

    Raises:
        ValueError: it has, or a link behind which one could lie, or its configs load what is no TorchScript; the
            message names the file and the first of what it does.
    """
    trusted = "--allow_expressions loads it if you trust it."
    for link in strange_links(folder):
        raise ValueError(f"{folder}/{link}, behind which nothing is looked at: put a copy there; {trusted}")
    try:
        loaded = {path for path in exported_networks(folder) if path.is_file()}
    except ValueError as error:
        raise ValueError(f"{folder}: {error}; {trusted}") from error
    for file in sorted({*loaded, *filter(is_torchscript, [*files_of(folder), *others])}):
        try:
            what = next(foreign_operators(file), None)
        except ValueError as error:
            what = str(error)
        if what is not None:
            raise ValueError(
                f"{file}: {what}, where a network computes alone; clinbundles doctor lists all of it, and {trusted}"
            )


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(8)


def _parsed(name: str, text: bytes) -> ast.Module:
    try:
        if not PRINTABLE.fullmatch(text):
            raise ValueError("it has other characters than those of ASCII")
        source = text.decode("ascii")
        if "#" in source and any(
            token.type == tokenize.COMMENT for token in tokenize.generate_tokens(io.StringIO(source).readline)
        ):
            raise ValueError("it has a comment, which exported code has not")
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise ValueError(f"has a {name} that cannot be read as TorchScript ({error})") from error


def _members(tree: ast.Module) -> Iterator[str]:
    """Name the methods and attributes of the classes of a file."""
    for each in (node for top in tree.body if isinstance(top, ast.ClassDef) for node in top.body):
        if isinstance(each, ast.FunctionDef):
            yield each.name
        for target in [each.target] if isinstance(each, ast.AnnAssign) else getattr(each, "targets", []):
            if isinstance(target, ast.Name):
                yield target.id
            elif isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                yield str(target.slice.value)


def _in_code(tree: ast.Module, own: Set[str], members: Collection[str]) -> Iterator[tuple[str, int]]:
    """List what code names beside what computes, with the line."""
    bound = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    bound |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound -= {"print", "fork", "awaitable"}  # which act, and are told where they are bound, too
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        line, dotted = getattr(node, "lineno", 0), _dotted(node)
        if dotted is not None:
            if (what := _foreign_name(dotted, own, members)) is not None:
                yield what, line
            continue
        nodes += ast.iter_child_nodes(node)
        if not isinstance(node, NODES) or getattr(node, "decorator_list", None):
            yield f"has {type(node).__name__}, which exported code has not", line
        elif isinstance(node, ast.Name) and node.id not in BUILTINS | bound:
            yield f"would run {node.id}", line
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and not _is_member(node.attr, members):
            yield f"would run aten::{node.attr}", line
        elif isinstance(node, ast.Call) and not isinstance(node.func, ast.Name | ast.Attribute):
            yield f"would call what {type(node.func).__name__} gives", line
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            name = node.args[1] if len(node.args) > 1 else None
            value = name.value if isinstance(name, ast.Constant) else None
            if not isinstance(value, str) or (value.isidentifier() and not _is_member(value, members)):
                yield f"would run {node.func.id} of {value!r}", line


def _dotted(node: ast.AST) -> str | None:
    """Write a name that begins with a module, such as torch.add, ops.prim.dtype or __torch__.a.B.

    An attribute of a class may be called ops: what binds the name is none, and all that reads it still is.
    """
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in ("torch", "ops", "__torch__", "CONSTANTS"):
        return None
    if node.id == "ops" and isinstance(node.ctx, ast.Store):
        return None
    return ".".join([node.id, *reversed(parts)])


def _foreign_name(dotted: str, own: Set[str], members: Collection[str]) -> str | None:
    """Say what a dotted name does, where it is neither an operator that computes nor a class of the file."""
    top, *parts = dotted.split(".")
    if top == "CONSTANTS" and len(parts) == 1 and re.fullmatch(r"c\d+", parts[0]):
        return None
    if top == "__torch__":
        heads = [".".join([top, *parts[:count]]) for count in range(1, len(parts) + 1)]
        if dotted.startswith(NATIVE) or own.isdisjoint(heads):
            return f"would make {dotted}, a class that is not in the file"
        behind = parts[1 + next(count for count, head in enumerate(heads) if head in own) :]
        return next((f"would run aten::{name}" for name in behind if not _is_member(name, members)), None)
    namespace, name = (parts[0] if parts else "", ".".join(parts[1:])) if top == "ops" else ("aten", ".".join(parts))
    computes = _computes(name) if namespace == "aten" else name in OF_NAMESPACE.get(namespace, ())
    return None if computes else f"would run {namespace}::{name}"


def _computes(name: str) -> bool:
    """Whether an operator of aten only computes."""
    return not {name, name.removesuffix("_")}.isdisjoint(OF_ATEN) or FAMILIES.fullmatch(name) is not None


def _is_member(name: str, members: Collection[str]) -> bool:
    """Whether what stands behind a dot is an operator that computes, or of a class of the file and no operator."""
    if _computes(name) or name in OF_NAMESPACE["prim"]:
        return True
    return name in members and not torch._C._jit_get_schemas_for_operator(f"aten::{name}")


def _in_list(name: str, content: bytes, own: Set[str]) -> Iterator[str]:
    """List what a list of values names beside containers, tensors and classes of the file."""
    try:
        for operation, value, _ in pickletools.genops(content):
            if operation.name == "GLOBAL" and not GLOBALS.fullmatch(str(value)):
                dotted = str(value).replace(" ", ".")
                if dotted not in own or dotted.startswith(NATIVE):
                    yield f"would make {dotted}, a class that is not in the file"
            elif operation.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX"):
                yield f"has {operation.name}, which exported lists have not"
    except (ValueError, UnicodeError, OverflowError, MemoryError) as error:
        raise ValueError(f"has a {name} that cannot be read ({error})") from error
