import os
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from clinbundles.scripts import cli
from clinbundles.scripts.cli import help_of, main
from clinbundles.scripts.verbs import VERBS, Verb

TOY = '''
from clinbundles.scripts.flags import Option

calls = []

def cook(dish, output: str = "out", *, seed: int = 0, hot: bool = True, rest: object = None):
    """Cook a dish.

    Args:
        dish: what.
        seed: of the dice.
    """
    calls.append((dish, output, seed, hot, rest))

def more(dish, **_):
    if dish != "soup":
        raise ValueError(f"there is no dish {dish!r}.")
    return {"salt": Option("salt", int, 1, "grains")}

def serve(dish: str, **options):
    """Serve a dish."""
    calls.append((dish, options))

def fail(kind: str):
    """Fail."""
    if kind == "ours":
        raise ValueError("soup.json: salt is -1,\\n    expected more.")
    if kind == "key":
        raise KeyError("soup.json: has no salt.")
    if kind == "file":
        open("/no/such/file")
    if kind == "wrapped":
        try:
            raise ValueError("soup.json: is cold.")
        except ValueError as error:
            raise RuntimeError("applying transform Heat") from error
    if kind == "fault":
        {}["salt"] if False else int("salt") / 0
    if kind == "interrupt":
        raise KeyboardInterrupt
'''


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    module = ModuleType("clinbundles.scripts.toy")
    monkeypatch.setitem(sys.modules, "clinbundles.scripts.toy", module)
    exec(TOY, module.__dict__)
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "cli.py"))
    table = {
        "cook": Verb("toy:cook", "cook", ("soup", "soup --seed 3")),
        "serve": Verb("toy:serve", "serve", ("soup", "soup --salt 3"), more="toy:more"),
        "show soup": Verb("toy:cook", "show", ("soup", "soup")),
        "show pot": Verb("toy:cook", "show", ("pot", "pot")),
        "fail": Verb("toy:fail", "fail", ("ours", "file")),
    }
    monkeypatch.setattr(cli, "VERBS", table)
    return module


def error_of(words: list[str], capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit) as raised:
        main(words)
    capsys.readouterr()
    assert isinstance(raised.value.code, str)  # which Python prints to stderr, and ends with status 1
    assert "\n" not in raised.value.code
    return raised.value.code


def test_values_reach_the_function_just_as_they_were_typed(toy: ModuleType) -> None:
    main(["cook", "2024", "--output", "12.50", "--seed=3", "--hot", "false", "--rest", '[true,"a#b"]'])
    main(["show", "pot", "it's", "--output", 'say "x" = 1, \\n'])
    assert toy.calls == [(2024, "12.50", 3, False, [True, "a#b"]), ("it's", 'say "x" = 1, \\n', 0, True, None)]


def test_what_is_wrong_with_the_words_is_said_before_anything_runs(
    toy: ModuleType, capsys: pytest.CaptureFixture
) -> None:
    assert error_of(["cook", "soup", "--sed", "3"], capsys) == (
        "clinbundles cook: there is no option --sed; did you mean --seed?"
    )
    assert "--hot is 'very', expected true or false" in error_of(["cook", "soup", "--hot", "very"], capsys)
    assert "--seed is 'x', expected a whole number" in error_of(["cook", "soup", "--seed", "x"], capsys)
    assert "there is no verb 'cok'; did you mean cook?" in error_of(["cok"], capsys)
    assert "show is followed by soup or pot, not by 'pott'; did you mean pot?" in error_of(["show", "pott"], capsys)
    assert "show is followed by soup or pot." in error_of(["show"], capsys)
    assert toy.calls == []


def test_values_can_bring_options_of_their_own(toy: ModuleType, capsys: pytest.CaptureFixture) -> None:
    main(["serve", "soup", "--salt", "3"])
    assert toy.calls == [("soup", {"salt": 3})]
    assert "there is no option --slat; did you mean --salt?" in error_of(["serve", "soup", "--slat", "3"], capsys)
    assert "there is no dish 'tea'." in error_of(["serve", "tea", "--salt", "3"], capsys)
    assert "--salt (default 1)\n      grains" in help_of("serve", ["soup"])
    assert toy.calls == [("soup", {"salt": 3})]


def test_a_mistake_of_the_user_is_one_sentence(toy: ModuleType, capsys: pytest.CaptureFixture) -> None:
    assert error_of(["fail", "ours"], capsys) == "clinbundles fail: soup.json: salt is -1, expected more."
    assert error_of(["fail", "key"], capsys) == "clinbundles fail: soup.json: has no salt."
    assert error_of(["fail", "file"], capsys) == "clinbundles fail: /no/such/file: No such file or directory."
    assert error_of(["fail", "wrapped"], capsys) == "clinbundles fail: soup.json: is cold."


def test_a_mistake_keeps_its_traceback_where_the_environment_asks_for_it(
    toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINBUNDLES_TRACEBACK", "1")
    with pytest.raises(ValueError, match="salt is -1"):
        main(["fail", "ours"])


def test_a_number_out_of_range_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = ["--output_dir", str(tmp_path), "--ckpt_dir", str(tmp_path), "--cache_rate", "0", "--image_size", "32"]
    words = ["run", "gaze_polyp_segmentation", "train", "--arm", "original", *out]
    assert "--num_workers is -1, expected 0 or more." in error_of([*words, "--num_workers", "-1"], capsys)
    assert "--learning_rate is -1" in error_of([*words, "--learning_rate=-1"], capsys)


def test_a_fault_of_the_program_keeps_its_traceback(toy: ModuleType) -> None:
    with pytest.raises(ValueError, match="'salt'"):
        main(["fail", "fault"])
    with pytest.raises(SystemExit, match="130"):
        main(["fail", "interrupt"])


def test_a_verb_whose_imports_take_seconds_says_that_it_starts_and_a_quick_one_does_not(
    toy: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    main(["cook", "soup", "--seed", "2"])
    assert capsys.readouterr().err == "clinbundles cook soup: starting: torch and MONAI take some 10 s to load\n"
    monkeypatch.setitem(cli.VERBS, "cook", replace(cli.VERBS["cook"], is_quick=True))
    main(["cook", "soup"])
    assert not capsys.readouterr().err


def test_the_verbs_that_are_quick_import_no_torch() -> None:
    modules = [verb.target.partition(":")[0] for verb in VERBS.values() if verb.is_quick]
    assert len(modules) > 3
    lines = [
        *(f"import clinbundles.scripts.{module}" for module in modules),
        "import sys",
        "print('torch' in sys.modules)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("verb", ["predict", "doctor", "deploy", "pack"])
def test_a_bundle_that_is_not_there_is_refused_before_anything_slow_is_imported(verb: str, tmp_path: Path) -> None:
    more = ["in", "out"] if verb in ("predict", "deploy") else []
    for bundle, sentence in (("absent.zip", "absent.zip: no such file."), ("absent", "'absent' is no bundle and no")):
        code = f"import sys\nfrom clinbundles.scripts.cli import main\nmain({[verb, bundle, *more]})"
        watch = f"import atexit, sys\natexit.register(lambda: print('torch' in sys.modules))\n{code}"
        done = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert (done.returncode, done.stdout) == (1, "False\n")
        assert done.stderr.startswith(f"clinbundles {verb}: {sentence}")


def test_a_terminal_without_a_size_has_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = os.openpty()
    with os.fdopen(leader, "rb"), os.fdopen(follower, "w") as terminal:
        for lines, is_disabled in ((0, "1"), (40, None)):
            termios.tcsetwinsize(terminal, (lines, 80))
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stderr", terminal)
                patch.setattr(os, "environ", {})
                main(["--help"])
                assert os.environ.get("TQDM_DISABLE") == is_disabled


def test_help_begins_with_two_examples(capsys: pytest.CaptureFixture) -> None:
    assert len(VERBS) > 5
    main(["--help"])
    pages = [capsys.readouterr().out, *(help_of(name) for name in VERBS)]
    for page in pages:
        first, *lines = page.splitlines()
        assert first == "Examples:"
        assert all(line.startswith("  clinbundles ") for line in lines[:2])
    assert all(f"  {name}" in pages[0] for name in VERBS)


def test_help_comes_in_under_a_second_and_an_unknown_verb_ends_with_status_1() -> None:
    command = str(Path(sys.executable).parent / "clinbundles")
    subprocess.run([command, "--help"], check=True, capture_output=True)  # compiles
    start = time.perf_counter()
    done = subprocess.run([command, "--help"], check=True, capture_output=True, text=True)
    assert time.perf_counter() - start < 1
    assert done.stdout.startswith("Examples:")
    assert done.stderr == ""
    done = subprocess.run([command, "trian"], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("clinbundles: there is no verb 'trian'")
    assert "Traceback" not in done.stderr


def test_nothing_heavy_is_imported_for_the_help() -> None:
    code = "import sys; from clinbundles.scripts.cli import main; main(['--help']); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    modules = set(done.stdout.splitlines()[-1].split())
    assert "fire" in modules
    assert not modules & {"numpy", "torch", "monai", "pandas", "matplotlib", "mlflow"}


def test_a_path_of_bytes_that_are_no_text_can_be_printed() -> None:
    code = "import sys; from clinbundles.scripts.cli import main; main(['--help']); print('b\\udce9')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == rb"b\udce9"


def test_the_stack_is_as_large_as_the_host_of_deploy_asks_for() -> None:
    code = (
        "import resource; from clinbundles.scripts.cli import raise_stack_limit; raise_stack_limit(); "
        "print(resource.getrlimit(resource.RLIMIT_STACK)[0])"
    )
    small = ["bash", "-c", f"ulimit -Ss 8192; exec {sys.executable} -c '{code}'"]
    done = subprocess.run(small, capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 32 << 20


@pytest.mark.parametrize("verb", ["run", "predict", "pack"])
def test_help_says_how_weights_of_ones_own_are_used(verb: str) -> None:
    assert "--ckpt_path" in help_of(verb)
    assert "weights of your own" in " ".join(help_of(verb).split())
