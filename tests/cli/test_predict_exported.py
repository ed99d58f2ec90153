"""tools/predict.py with an exported file in place of a run."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.predict import main
from vision.engine.errors import ConfigError, DataError

pytest.importorskip("onnx", reason="no onnx")
pytest.importorskip("onnxruntime", reason="no onnxruntime")

from tests.deploy import stubs
from vision.deploy.runner import ExportedFiles, Predictor


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo_12.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    return path


def test_people_in_the_boxes_of_a_file(tmp_path: Path, photo: Path) -> None:
    folder = stubs.KIND["udp_heatmap"](tmp_path / "export")
    rows = [{"image_id": 12, "bbox": [5, 6, 40, 50], "score": 0.75}, {"image_id": 12, "bbox": [30, 1, 30, 30]}]
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(rows))
    assert main([str(folder / "model.onnx"), str(photo), "--boxes", str(boxes), "--device", "cpu"]) == 0
    predictor = Predictor(folder)
    expected = predictor(str(photo), [[*row["bbox"], row.get("score", 1.0)] for row in rows])
    (found,) = json.loads((folder / "predict" / "predictions.json").read_text())
    assert found == {"file": str(photo), **json.loads(json.dumps(expected.to_dict()))}
    assert json.loads((folder / "predict" / "coco_results.json").read_text()) == expected.to_coco()
    with Image.open(folder / "predict" / "photo_12.png") as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), expected.draw(predictor.picture(photo)))


def test_the_folder_of_an_export_and_files_that_cannot_be_read(tmp_path: Path, photo: Path) -> None:
    folder = stubs.KIND["classes"](tmp_path / "export")
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:100])
    with pytest.raises(DataError, match="1 of 2 files could not be read"):
        main([str(folder), str(photo), str(broken), "-o", str(tmp_path / "out")])
    (found,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert found["label"] == Predictor(folder)(photo).label


def test_frames_of_videos_are_predicted_like_pictures(tmp_path: Path, photo: Path) -> None:
    predictor = Predictor(stubs.KIND["single_stage"](tmp_path / "export"))
    with Image.open(photo) as image:
        frame = np.asarray(image)
    found, drawn = ExportedFiles(predictor).frame(frame, "dance.mp4#3", 3, None)
    expected = predictor(photo)
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    assert found.image_id == 3 and found.id == "dance.mp4#3"
    np.testing.assert_array_equal(drawn, expected.draw(frame))


def test_what_is_refused(tmp_path: Path, photo: Path) -> None:
    folder = stubs.KIND["classes"](tmp_path / "export")
    with pytest.raises(ConfigError, match="is an exported network; leave out --checkpoint"):
        main([str(folder), str(photo), "--checkpoint", "last"])
    with pytest.raises(ConfigError, match="leave out the boxes"):
        main([str(folder), str(photo), "--boxes", "image"])
    with pytest.raises(ConfigError, match="no such file"):
        main([str(tmp_path / "no.onnx"), str(photo)])
