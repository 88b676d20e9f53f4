"""``clinbundles folds``: the datalists of a true cross-validation, one a fold, trained anew for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clinbundles.engines.folds import folds_by_group
from clinbundles.engines.outputs.files import write_atomically
from clinbundles.scripts.flags import choose_names
from clinbundles.scripts.option_values import check_datalist

from .datalist import SPLITS, check_seed, datalist_as_json, items_of


def write_folds(
    datalist: str,
    output_dir: str,
    *,
    folds: int = 5,
    splits: Any = "training,validation,test",
    validation: bool = True,
    seed: int = 0,
) -> None:
    """Write fold_0.json, fold_1.json and so on, whose splits no patient or other group crosses.

    The items of the datalist are dealt to folds by their groups. Fold k is the test split of fold_k.json, the fold
    after it the validation split, the others the training split.

    Args:
        datalist: JSON file whose items have groups, such as prepare writes.
        output_dir: folder for the files; their paths start from the same folder as those of the datalist.
        folds: number of folds.
        splits: those of the datalist whose items are dealt, comma separated; the others are left out, such as the test
            split where settings are to be chosen before it is looked at.
        validation: keep a fold for validation in each file; without it, those two are for training.
        seed: of the order in which groups of one size are dealt.
    """
    source, target = Path(datalist), Path(output_dir)
    check_seed(seed)
    check_datalist(datalist)
    content = json.loads(source.read_text(encoding="utf-8"))
    chosen = choose_names(splits, list(SPLITS), "splits")
    items = items_of({name: content.get(name, []) for name in chosen})
    if not items:
        raise ValueError(f"{source}: there is no item in its splits {', '.join(chosen)}.")
    groups = [item.get("group") for item in items]
    if None in groups:
        raise ValueError(f"{source}: {items[groups.index(None)].get('image')} has no group, so folds could share one.")
    if validation and folds == 2:
        raise ValueError("--folds 2 leave none for training beside test and validation: add --validation false")
    try:
        places = folds_by_group(groups, folds, seed=seed)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if not target.parent.is_dir() or target.is_file():
        raise ValueError(f"--output_dir {target}: expected a folder, or a new one in a folder that exists")

    within = "" if len(chosen) == len(SPLITS) else f" within {' and '.join(chosen)}"
    target.mkdir(exist_ok=True)
    for k in range(folds):
        names = dict.fromkeys(range(folds), "training") | {k: "test"}
        if validation:
            names[(k + 1) % folds] = "validation"
        of = {name: sorted(p for fold in range(folds) if names[fold] == name for p in places[fold]) for name in SPLITS}
        own = {"split": f"fold {k} of {folds} by group{within}", "seed": seed, "ratios": None}
        own |= {f"num{name.capitalize()}": len(members) for name, members in of.items()}
        facts = {name: value for name, value in content.items() if name not in SPLITS}
        # MONAI takes the first item of a split to know its kind: an empty one must not be there.
        dealt = {name: [items[place] for place in members] for name, members in of.items() if members}
        write_atomically(target / f"fold_{k}.json", datalist_as_json({**facts, **own, **dealt}))
        counts = [f"{len(m)} {name} of {len({groups[p] for p in m})} groups" for name, m in of.items() if m]
        print(f"wrote {target / f'fold_{k}.json'}: {', '.join(counts)}")
