"""Files of external weights: ordinary, wrapped, damaged and hostile ones."""

from __future__ import annotations

import argparse
import copy
import json
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections import Counter, OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from memory import growth_bytes
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from transferbench.errors import DataError
from transferbench.networks.weight_paths import is_path, locate_weights
from transferbench_plugins.backbones._weight_loading import load_weights, read_weights

HEADS = ["fc"]


def network() -> nn.Module:
    block = nn.Sequential(OrderedDict(conv=nn.Conv2d(4, 4, 3), norm=nn.BatchNorm2d(4)))
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), layer=nn.Sequential(block),
            fc=nn.Linear(4, 5),
        )
    )  # fmt: skip


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    NET = network()
OWN = NET.state_dict()
WEIGHTS = {name: tensor.clone() for name, tensor in OWN.items()}
OTHER = {name: tensor + 1 for name, tensor in WEIGHTS.items()}
BODY = [name for name in WEIGHTS if not name.startswith("fc.")]


def wrapped(prefix: str, state: dict[str, Tensor] = WEIGHTS) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def saved(content: Any, folder: Path, name: str = "w.pth", **options: Any) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".safetensors"):
        save_file({name: tensor.clone() for name, tensor in content.items()}, path)
    else:
        torch.save(content, path, **options)
    return str(path)


def remarks_on(file: str | Path, expected: dict[str, Tensor] = WEIGHTS) -> str:
    """How a file was read, after a check that its body is ``expected``."""
    weights = read_weights(str(file), OWN, HEADS)
    net = network()
    load_weights(net, weights.state, HEADS, str(file))
    own = net.state_dict()
    assert all(torch.equal(own[name], expected[name]) for name in BODY)
    return "; ".join(weights.remarks)


def refusal(file: str | Path) -> str:
    with pytest.raises(DataError) as caught:
        load_weights(network(), read_weights(str(file), OWN, HEADS).state, HEADS, str(file))
    return str(caught.value)


def written(data: bytes, folder: Path, name: str = "w.pth") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# --- which text is a file ---------------------------------------------------------------------

NAMES = [
    "best.pth", "best.pth.tar", "best.ckpt", "best.PTH", "best", "r160_in1k", "my best é@3=x.w",
    "run #3/best.pth", "run #sha256=3/best", "重み.bin", "best.index",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_exists_is_a_file_whatever_its_name(tmp_path, name, monkeypatch):
    file = Path(saved(WEIGHTS, tmp_path, name))
    located = locate_weights(str(file))
    assert remarks_on(file) == ""
    assert remarks_on(f"{file}#sha256={located.sha256}") == ""
    (tmp_path / "link").symlink_to(file)
    assert remarks_on(tmp_path / "link") == ""
    monkeypatch.chdir(tmp_path)
    assert remarks_on(name) == ""


@pytest.mark.parametrize(
    "text", ["gone.pth", "gone.ckpt", "GONE.PTH", "a/b", "run #3/x", "x#sha256=00", "x.index.json"]
)
def test_what_looks_like_a_path_and_is_not_there_is_missing(text):
    assert is_path(text)
    assert refusal(text) == f"no weights file {text}; give the path of an existing file"


def test_names_without_a_folder_or_suffix_are_no_paths():
    assert not any(map(is_path, ["a1_in1k", "best", "v1.0", "x#1", "x" * 5000, "a\0b"]))


def test_a_dangling_link_and_a_device_are_no_files(tmp_path):
    (tmp_path / "link.pth").symlink_to(tmp_path / "gone.pth")
    assert "no weights file" in refusal(tmp_path / "link.pth")
    assert (
        refusal("/dev/zero") == "/dev/zero is neither a file nor a folder; give a file of weights"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "no weights file" in refusal(tmp_path / "loop")
    file = saved(WEIGHTS, tmp_path)
    os.truncate(file, 0)
    assert refusal(file) == f"{file} is empty; get it again"


# --- shards -----------------------------------------------------------------------------------


def shards(folder: Path, suffix: str = "safetensors", **changes: Any) -> Path:
    """An index and its two shards; ``changes``: of the map of tensors."""
    names, half = list(WEIGHTS), len(WEIGHTS) // 2
    parts = {f"part-1.{suffix}": names[:half], f"part-2.{suffix}": names[half:]}
    for file, members in parts.items():
        saved({name: WEIGHTS[name] for name in members}, folder, file)
    shard_of = {name: file for file, members in parts.items() for name in members}
    index = folder / f"model.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": shard_of | changes}))
    return index


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_are_read_by_their_index_or_their_folder(tmp_path, suffix):
    index = shards(tmp_path / "run #3", suffix)
    assert remarks_on(index) == ""
    assert remarks_on(index.parent) == ""
    digests = {locate_weights(str(path)).sha256 for path in (index, index.parent)}
    assert len(digests) == 1
    assert remarks_on(f"{index.parent}#sha256={digests.pop()}") == ""
    assert "has sha256" in refusal(f"{index.parent}#sha256=00")


def test_the_digest_of_shards_is_of_their_bytes(tmp_path):
    index = shards(tmp_path)
    before = locate_weights(str(index)).sha256
    saved({name: OTHER[name] for name in list(OTHER)[:5]}, tmp_path, "part-1.safetensors")
    assert locate_weights(str(index)).sha256 != before


def test_a_folder_of_one_file_is_that_file(tmp_path):
    file = saved(WEIGHTS, tmp_path, "model.safetensors")
    saved({}, tmp_path, "optimizer.pt")
    assert remarks_on(tmp_path) == ""
    assert locate_weights(str(tmp_path)).sha256 == locate_weights(file).sha256
    assert locate_weights(str(tmp_path)).name == tmp_path.name
    saved(WEIGHTS, tmp_path, "other.safetensors")
    assert "holds model.safetensors, other.safetensors; give one of them" in refusal(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "empty holds no weights (.safetensors, .pth, .pt, .bin or" in refusal(tmp_path / "empty")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not an index of shards (JSONDecodeError"),
        ("[]", "is not an index of shards (TypeError"),
        ("{}", "is not an index of shards (KeyError: 'weight_map'); it must map each tensor"),
        ("[" * 100_000, "is not an index of shards (RecursionError"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "(ValueError: a name is there twice)"),
        ('{"weight_map": {}}', 'maps no tensor to a file under "weight_map"'),
        ('{"weight_map": {"a": 1}}', 'maps no tensor to a file under "weight_map"'),
        ('{"weight_map": {"a": "../w.pth"}}', "the shard '../w.pth', which is not in its folder"),
        ('{"weight_map": {"a": "/etc/hosts"}}', "the shard '/etc/hosts', which is not in its"),
        ('{"weight_map": {"a": "gone.bin"}}', "names gone.bin, which"),
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path, content, message):
    file = written(content.encode(), tmp_path, "x.index.json")
    assert message in refusal(file)


def test_an_index_of_other_limits_is_refused(tmp_path, monkeypatch):
    index = shards(tmp_path)
    monkeypatch.setattr("transferbench.networks.weight_paths.MAX_SHARDS", 1)
    assert "names 2 shards, more than 1" in refusal(index)
    monkeypatch.setattr("transferbench.networks.weight_paths.MAX_INDEX_BYTES", 10)
    assert "has more than 10 bytes: it is not an index" in refusal(index)


def test_a_shard_without_its_tensor_is_refused(tmp_path):
    index = shards(tmp_path, absent="part-1.safetensors")
    assert "says that part-1.safetensors holds absent, and it does not; get both" in refusal(index)


# --- wrappers ---------------------------------------------------------------------------------

PREFIXES = [
    "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "net.", "encoder.",
    "model.backbone.", "net.module._orig_mod.", "module.encoder_q.", "student.backbone.",
    "_fsdp_wrapped_module.", "_forward_module.", "anything.of.yours.",
]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_wrappers_are_undone_where_the_names_then_match(tmp_path, prefix, name):
    file = saved(wrapped(prefix), tmp_path, name)
    assert remarks_on(file) == f"removed {prefix!r} from the names"


@pytest.mark.parametrize("part", ["module", "_orig_mod", "_checkpoint_wrapped_module"])
def test_wrappers_of_a_layer_are_undone(tmp_path, part):
    state = {name.replace("layer.", f"layer.{part}."): WEIGHTS[name] for name in WEIGHTS}
    assert remarks_on(saved(state, tmp_path)) == f"removed '{part}.' inside the names"
    both = remarks_on(saved(wrapped("module.", state), tmp_path))
    assert both == f"removed 'module.' from the names; removed '{part}.' inside the names"


def test_a_name_of_the_network_is_no_wrapper(tmp_path):
    net = nn.Sequential(OrderedDict(module=nn.Linear(3, 3), fc=nn.Linear(3, 2)))
    own = net.state_dict()
    file = saved({f"_orig_mod.{name}": tensor for name, tensor in own.items()}, tmp_path)
    weights = read_weights(file, own, HEADS)
    assert list(weights.state) == list(own)


def test_checkpoints_of_training_scripts_are_read(tmp_path):
    optimizer = {"state": {0: {"exp_avg": OTHER["stem.weight"]}}, "param_groups": [{"lr": 0.1}]}
    checkpoint = {
        "epoch": 3, "state_dict": wrapped("module."), "optimizer": optimizer,
        "rng": torch.get_rng_state(), "args": None,
    }  # fmt: skip
    rest = "removed 'module.' from the names; ignored epoch, optimizer, rng, args"
    assert remarks_on(saved(checkpoint, tmp_path)) == f"read from 'state_dict'; {rest}"
    deeper = saved({"a": [{"b": checkpoint}]}, tmp_path)
    assert remarks_on(deeper) == f"read from 'a.0.b.state_dict'; {rest}"
    lightning = {"state_dict": wrapped("model.") | {"criterion.weight": torch.ones(3)}, "loops": {}}
    assert remarks_on(saved(lightning, tmp_path)) == (
        "read from 'state_dict'; removed 'model.' from the names; ignored loops, criterion"
    )


def test_averaged_models_are_read(tmp_path):
    averaged = torch.optim.swa_utils.AveragedModel(NET).state_dict()
    removed = "removed 'module.' from the names; ignored n_averaged"
    assert remarks_on(saved(averaged, tmp_path)) == removed
    both = saved({"raw": OTHER, "swa_model": averaged}, tmp_path)
    assert remarks_on(both) == (
        "read from 'swa_model'; removed 'module.' from the names; ignored raw, n_averaged"
    )
    inside = saved(wrapped("net.", OTHER) | wrapped("ema.module."), tmp_path)
    assert remarks_on(inside).startswith("removed 'ema.module.' from the names; ignored net.stem")


def test_of_several_nests_the_first_that_timm_takes_is_read(tmp_path):
    file = saved({"state_dict": OTHER, "state_dict_ema": WEIGHTS}, tmp_path)
    assert remarks_on(file) == "read from 'state_dict_ema'; ignored state_dict"
    file = saved({"model": WEIGHTS, "ema": OTHER}, tmp_path)
    assert remarks_on(file) == "read from 'model'; ignored ema"


def test_an_average_without_batch_statistics_is_no_network(tmp_path):
    parameters = {name: OTHER[name] for name, _ in NET.named_parameters()}
    file = saved({"state_dict": WEIGHTS, "state_dict_ema": parameters}, tmp_path)
    assert remarks_on(file) == "read from 'state_dict'; ignored state_dict_ema"


def test_two_networks_in_a_file_are_never_guessed_between(tmp_path):
    moco = {"state_dict": wrapped("module.encoder_q.") | wrapped("module.encoder_k.", OTHER)}
    assert refusal(saved(moco, tmp_path)).endswith(
        "holds several networks that fit: 'state_dict.module.encoder_q', "
        "'state_dict.module.encoder_k'; save the one that you mean alone, as "
        "torch.save(net.state_dict(), FILE)"
    )
    dino = {"student": wrapped("module.backbone.", OTHER), "teacher": wrapped("backbone.")}
    message = refusal(saved(dino, tmp_path))
    assert "fit: 'student.module.backbone', 'teacher.backbone'; save" in message
    assert remarks_on(saved({"a": WEIGHTS, "b": WEIGHTS}, tmp_path)) == "read from 'a'; ignored b"
    of_other_shape = {name: tensor[:1] for name, tensor in wrapped("small.").items() if tensor.ndim}
    file = saved(wrapped("large.") | of_other_shape, tmp_path)
    assert remarks_on(file).startswith("removed 'large.' from the names; ignored small")


def test_two_tensors_of_one_name_are_never_guessed_between(tmp_path):
    def twice(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace("layer.", "layer._orig_mod."): state[name] for name in state}

    assert remarks_on(saved(WEIGHTS | twice(WEIGHTS), tmp_path)) != ""
    message = refusal(saved(WEIGHTS | twice(OTHER), tmp_path))
    assert "holds two tensors layer.0.conv.weight, one of them behind a wrapper; save" in message


class Compiled(nn.Module):
    """What ``torch.compile`` makes of a network, as far as names go."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self._orig_mod = net


class Held(nn.Module):
    """A network beside its compiled form, with which it shares all tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.model = copy.deepcopy(NET)
        self.compiled = Compiled(self.model)


def test_a_compiled_network_is_read_from_safetensors_that_share_tensors(tmp_path):
    save_model(Compiled(copy.deepcopy(NET)), str(tmp_path / "a.safetensors"))
    assert remarks_on(tmp_path / "a.safetensors") == "removed '_orig_mod.' from the names"
    save_model(Held(), str(tmp_path / "b.safetensors"))
    assert remarks_on(tmp_path / "b.safetensors").startswith("removed ")


def test_what_is_beside_the_network_is_ignored_and_what_is_inside_refused(tmp_path):
    beside = {"projector.0.weight": torch.ones(3), "fc.0.weight": torch.ones(2)}
    counts = {"total_ops": torch.ones(1), "layer.0.total_params": torch.ones(1)}
    assert remarks_on(saved(WEIGHTS | beside | counts, tmp_path)) == (
        "ignored projector.0.weight, fc.0.weight, total_ops, layer.0.total_params"
    )
    deeper = refusal(saved(WEIGHTS | {"layer.1.conv.weight": torch.ones(3)}, tmp_path))
    assert "unexpected: layer.1.conv.weight" in deeper
    token = refusal(saved(WEIGHTS | {"dist_token": torch.ones(3)}, tmp_path))
    assert "unexpected: dist_token" in token


def test_names_of_a_file_are_printed_as_one_short_line(tmp_path):
    file = saved(
        WEIGHTS | {"a\n\x1b[31m.b": torch.ones(1), "x" * 400 + ".y": torch.ones(1)}, tmp_path
    )
    remarks = remarks_on(file)
    assert remarks.startswith("ignored a??[31m.b, ")
    assert remarks.isprintable()
    assert len(remarks) < 200


def test_other_names_are_matched_by_order_and_that_is_said(tmp_path):
    state = {f"other{index}.{name.rpartition('.')[2]}": WEIGHTS[name]
             for index, name in enumerate(WEIGHTS)}  # fmt: skip
    said = "matched by order, since no name is the network's"
    assert remarks_on(saved(state, tmp_path)) == said
    nested = saved({"model": wrapped("module.", state)}, tmp_path)
    assert remarks_on(nested) == f"read from 'model'; removed 'module.' from the names; {said}"
    assert "missing: stem.weight" in refusal(saved(state, tmp_path, "w.safetensors"))


# --- kinds of tensors -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_floats_of_every_precision_are_weights(tmp_path, kind):
    state = {name: tensor.to(kind) if tensor.is_floating_point() else tensor
             for name, tensor in WEIGHTS.items()}  # fmt: skip
    expected = {name: state[name].to(OWN[name].dtype) for name in state}
    assert remarks_on(saved(state, tmp_path), expected) == ""


def test_counters_may_be_floats_and_parameters_objects(tmp_path):
    floats = {name: tensor.float() for name, tensor in WEIGHTS.items()}
    assert remarks_on(saved(floats, tmp_path)) == ""
    objects = OrderedDict((name, nn.Parameter(floats[name])) for name in floats)
    assert remarks_on(saved(objects, tmp_path)) == ""
    name = "norm.num_batches_tracked"
    assert f"{name} is float32 where the network has int64" in refusal(
        saved(WEIGHTS | {name: torch.tensor(0.5)}, tmp_path)
    )


def quantised(tensor: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of its quantised tensors
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda tensor: tensor.to(torch.complex64), "complex64 where the network has float32"),
        (lambda tensor: tensor.to(torch.int8), "int8 where the network has float32"),
        (lambda tensor: tensor > 0, "bool where the network has float32"),
        (quantised, "quantised (qint8)"),
        (Tensor.to_sparse, "not dense (sparse_coo)"),
        (lambda tensor: tensor.to("meta"), "on the meta device, which holds no values"),
        (lambda tensor: torch.ones(1).expand(10**6, 10**6), "more than the file holds"),
    ],
)
def test_tensors_that_are_no_plain_floats_are_refused(tmp_path, convert, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own storages
        file = saved(WEIGHTS | {"stem.weight": convert(WEIGHTS["stem.weight"])}, tmp_path)
    said = refusal(file)
    assert "stem.weight is " in said
    assert message in said
    assert said.endswith("; give the weights as plain tensors of floats")


def test_a_tensor_without_dimensions_does_not_fit(tmp_path):
    message = refusal(saved(WEIGHTS | {"stem.weight": torch.tensor(1.0)}, tmp_path))
    assert "of another shape: stem.weight is () where the network has (4, 3, 3, 3)" in message


# --- what is no weights file ------------------------------------------------------------------


class Malicious:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.folder),))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        (argparse.Namespace(lr=0.1), "argparse.Namespace"),
        (np.float64(0.5), "numpy"),
        (np.zeros(3), "numpy"),
        (print, "print"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_culprit_that_is_no_tensor_is_named(tmp_path, content, culprit, zipped):
    file = saved(
        {"args": content, "model": WEIGHTS}, tmp_path, _use_new_zipfile_serialization=zipped
    )
    message = refusal(file)
    assert f"{file} cannot be read as weights (beside tensors it holds " in message
    assert culprit in message
    assert "reading that could run code); give a file of tensors alone; where you trust" in message


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("content", [NET, {"model": NET}], ids=["network", "nested"])
def test_a_pickled_network_is_to_be_saved_by_its_state_dict(tmp_path, content, zipped):
    file = saved(content, tmp_path, _use_new_zipfile_serialization=zipped)
    message = refusal(file)
    assert f"{file} cannot be read as weights (it holds a pickled network, of torch.nn." in message
    assert message.endswith(
        "save the state dict of the network instead; where you trust this file, load it with "
        "torch.load(FILE, weights_only=False), and save torch.save(net.state_dict(), NEW_FILE)"
    )


def test_code_in_a_pickle_is_never_run(tmp_path):
    evil = Malicious(tmp_path / "created")
    for zipped in (True, False):
        file = saved({"x": evil, "model": WEIGHTS}, tmp_path, _use_new_zipfile_serialization=zipped)
        assert "mkdir" in refusal(file)
    assert "cannot be read as weights" in refusal(written(pickle.dumps({"x": evil}), tmp_path))
    assert not (tmp_path / "created").exists()


FOREIGN = {
    b"\n <!DOCTYPE html>": "is a page of HTML or XML, not the file itself: download it again",
    b"version https://git-lfs.github.com/spec/v1\noid": "is a pointer of git-lfs, not the file",
    b'{"a": 1}': "is JSON; give the weights that it describes",
    b"\x1f\x8b\x08\0\0": "is compressed by gzip; unpack it",
    b"BZh91AY": "is compressed by bzip2; unpack it",
    b"\xfd7zXZ\0": "is compressed by xz; unpack it",
    b"(\xb5/\xfd\0": "is compressed by zstd; unpack it",
    b"\x89HDF\r\n": "is an HDF5 file; load it where it comes from, and save the tensors",
    b"\x93NUMPY\1": "is one array of numpy; give named tensors",
    b"garbage": "cannot be read as weights (it begins as no file of safetensors or torch); give a",
}


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w"])
@pytest.mark.parametrize("data", FOREIGN)
def test_what_a_file_is_instead_is_said(tmp_path, data, name):
    file = written(data, tmp_path, name)
    assert refusal(file).startswith(f"{file} {FOREIGN[data]}")


def test_other_archives_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", weight=np.zeros(3))
    assert "is an archive of numpy arrays (.npz)" in refusal(tmp_path / "a.npz")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(saved(WEIGHTS, tmp_path))
    assert "is a tar archive; unpack it and give the weights file" in refusal(tmp_path / "a.tar")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("notes.txt", "text")
    assert "is a zip of something else, not saved with torch.save" in refusal(tmp_path / "a.zip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of TorchScript
        torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "a.pt"))
    assert "a.pt is a TorchScript archive, not saved with torch.save" in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("name", "zipped"), [("a.pth", True), ("a.pth", False), ("a.safetensors", True)]
)
def test_a_truncated_file_is_refused(tmp_path, name, zipped):
    whole = Path(saved(WEIGHTS, tmp_path, name, _use_new_zipfile_serialization=zipped)).read_bytes()
    for size in (1, 8, 9, 10, 60, 100, 500, len(whole) // 2, len(whole) - 1):
        assert "cannot be read as weights" in refusal(written(whole[:size], tmp_path, "cut"))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (None, "NoneType"),
        ([1, 2], "list"),
        ({}, "dict"),
        ("text", "str"),
        (torch.ones(3), "Tensor"),
    ],
)
def test_a_file_without_named_tensors_is_refused(tmp_path, content, kind):
    message = refusal(saved(content, tmp_path))
    assert f"holds {kind}, not named tensors; give a state dict" in message


def test_nested_and_repeated_contents_are_read_in_bounds(tmp_path):
    repeated: list[Any] = [0]
    deep: dict[str, Any] = {}
    for _ in range(60):
        repeated = [repeated] * 10
        deep = {"m": deep}
    file = saved({"repeated": repeated, "deep": deep, "model": WEIGHTS}, tmp_path)
    assert remarks_on(file) == "read from 'model'; ignored repeated, deep"


# --- sizes that a file claims -----------------------------------------------------------------


def bomb(path: Path, size_bytes: int) -> Path:
    """A checkpoint whose first tensor is a compressed run of zeros."""
    torch.save({"stem.weight": torch.zeros(3)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            if not name.endswith("data/0"):
                archive.writestr(name, data)
                continue
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as stream:
                for _ in range(size_bytes // 2**20):
                    stream.write(bytes(2**20))
    return path


def test_a_zip_that_inflates_is_refused_without_inflating_it(tmp_path):
    file = bomb(tmp_path / "w.pth", 2**27)
    assert file.stat().st_size < 2**18
    said = []
    assert growth_bytes(lambda: said.append(refusal(file))) < 2**26
    assert "declares 134,21" in said[0]


def test_a_zip_behind_something_else_is_refused(tmp_path):
    whole = Path(saved(WEIGHTS, tmp_path)).read_bytes()
    assert "which torch.save never does" in refusal(written(b"PK\3\4" + whole, tmp_path))


def flipped(folder: Path, **options: Any) -> Path:
    """A checkpoint with one bit of a tensor changed, and nothing else."""
    file = Path(saved(WEIGHTS, folder, **options))
    with zipfile.ZipFile(file) as archive:
        data = archive.read(next(name for name in archive.namelist() if name.endswith("data/0")))
    content = bytearray(file.read_bytes())
    content[bytes(content).index(data) + 2] ^= 1
    file.write_bytes(content)
    return file


def test_a_zip_with_a_wrong_checksum_is_damaged(tmp_path):
    file = flipped(tmp_path)
    expected = "is damaged: the content of w/data/0 in it has another checksum than was written"
    assert f"{file} {expected}; get it again" in refusal(file)


def test_a_zip_without_checksums_is_read(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        file = saved(WEIGHTS, tmp_path)
    finally:
        torch.serialization.set_crc32_options(before)
    remarks_on(file)


class Call:
    """Is pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


MANY = list(range(10_000))
GREEDY = {
    "bytearray": ([Call(bytearray, 5 * 10**9)], "bytearray, which makes objects of any"),
    "storage": ([Call(torch.FloatStorage, 10**9)], "FloatStorage, which makes objects of"),
    "tensor": ([Call(torch.FloatTensor, 10**9)], "FloatTensor, which makes objects of any"),
    "argument": (
        [Call(torch._tensor._rebuild_from_type_v2, bytearray, bytearray, (10**9,), None)],
        "bytearray, which makes objects of any size",
    ),
    "sets": ([Call(set, MANY) for _ in range(200)], "set again and again with large"),
    "sizes": (
        [Call(torch.Size, tuple(MANY))] + [Call(torch.Size, MANY) for _ in range(100)],
        "Size again and again with large contents",
    ),
    "counters": (
        [Call(Counter, MANY) for _ in range(100)],
        "Counter again and again with large contents",
    ),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("content", "call"), GREEDY.values(), ids=GREEDY)
def test_a_pickle_that_takes_memory_is_refused_before_it_does(tmp_path, content, call, zipped):
    file = saved({"x": content, **WEIGHTS}, tmp_path, _use_new_zipfile_serialization=zipped)
    said = []
    assert growth_bytes(lambda: said.append(refusal(file))) < 2**26
    assert f"w.pth cannot be read as weights (it calls {call}" in said[0]


@pytest.mark.parametrize("zipped", [True, False])
def test_small_sets_and_the_like_beside_weights_are_read(tmp_path, zipped):
    beside = {"seen": set(MANY), "counts": Counter("weights"), "size": torch.Size([3, 4]),
              "ordered": OrderedDict(a=1), "bytes": b"abc", "note": "x" * 1000}  # fmt: skip
    file = saved({"state_dict": WEIGHTS, **beside}, tmp_path,
                 _use_new_zipfile_serialization=zipped)  # fmt: skip
    remarks_on(file)


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(b"{}", 2**63), "its header has 9,223,372,036,854,775,808 bytes in a file of 10"),
        (header(b"{" + b" " * 2**24), "its header has 16,777,217 bytes in a file of 16,777,225"),
        (header(b'{"a":' * 100_000), "recursion limit exceeded"),
        (
            header(b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'),
            "file not fully covered",
        ),
    ],
)
def test_a_header_of_safetensors_is_not_believed(tmp_path, data, message):
    said = refusal(written(data, tmp_path, "w.safetensors"))
    assert "cannot be read as weights" in said
    assert message in said


def test_a_flipped_byte_never_escapes_as_another_error(tmp_path):
    """Whatever is damaged, the file loads or is refused in words."""
    rng = np.random.default_rng(0)
    for name, zipped in (("a.pth", True), ("b.pth", False), ("c.safetensors", True)):
        file = saved(WEIGHTS, tmp_path, name, _use_new_zipfile_serialization=zipped)
        whole = Path(file).read_bytes()
        for position in rng.integers(0, len(whole), 60):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << int(rng.integers(8))
            file = str(written(bytes(damaged), tmp_path, "damaged"))
            with suppress(DataError):
                load_weights(network(), read_weights(file, OWN, HEADS).state, HEADS, file)
