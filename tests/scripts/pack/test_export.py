from pathlib import Path

import pytest
import torch

from clinbundles.nets.onnx_network import OnnxNetwork
from clinbundles.scripts.bundle import load_network, open_configs
from clinbundles.scripts.pack import export
from clinbundles.scripts.pack.export import export_onnx, plain, probabilities
from clinbundles.scripts.pack.machine_paths import IN_EXAMPLES

ROOT = Path(__file__).parents[3]
BUNDLES = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/metadata.json"))
FINDS_INSTANCES = "pace_cell_segmentation"
# The exporter's own.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.parametrize("bundle", [b for b in BUNDLES if b.name != FINDS_INSTANCES], ids=lambda path: path.name)
def test_an_exported_network_classifies_batches_of_other_images_as_the_network_does(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content, difference = export_onnx(bundle)
    assert capsys.readouterr().err.splitlines() == [
        f"{bundle.name}: running the network on samples",
        f"{bundle.name}: exporting to ONNX, which takes seconds, or more on a busy machine",
        f"{bundle.name}: comparing what was exported with the network itself",
    ]
    assert difference < 1e-4
    assert not IN_EXAMPLES.search(content.decode("latin-1"))
    (tmp_path / "a.onnx").write_bytes(content)
    exported = OnnxNetwork()
    exported.load_file(tmp_path / "a.onnx")
    parser = open_configs(bundle, ["inference"], device="cpu")
    network = load_network(parser)
    image = plain(parser.get_parsed_content("dataset")[0]["image"])
    image = image[..., 0] if image.ndim == 4 else image
    batch = torch.stack([image.flip(1), image.flip(2), image.rot90(1, (1, 2))])
    with torch.inference_mode():
        expected = probabilities(network(batch))
    torch.testing.assert_close(probabilities(exported(batch)), expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.01


def test_an_export_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    for name, told in (("ct_datasetgan", "e-"), (FINDS_INSTANCES, "e-")):
        with pytest.raises(ValueError, match=rf"{name}: a probability of the exported network differs by .*{told}"):
            export_onnx(ROOT / "bundles" / name)
    monkeypatch.setattr(export, "largest_difference", lambda *_: float("inf"))
    with pytest.raises(ValueError, match=f"{FINDS_INSTANCES}: the exported network draws another label map"):
        export_onnx(ROOT / "bundles" / FINDS_INSTANCES)
