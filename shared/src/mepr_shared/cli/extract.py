"""`mepr extract`: the parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mepr_shared.cli.verbs import add_verb, set_option


def add_extract(verbs: Any) -> None:
    """Add the verb."""
    verb = add_verb(
        verbs,
        "extract",
        "extract_verb:run_extract",
        "encode corpora for several installed modalities, videos in one pass",
    )
    verb.add_argument("--corpus", type=Path, action="append", required=True, metavar="X.parquet")
    verb.add_argument("--store", type=Path, required=True)
    verb.add_argument(
        "--modalities",
        metavar="face,body,...",
        help="default: all installed ones that the corpora have input for",
    )
    verb.add_argument("--profile", choices=("small", "paper"), default="small")
    set_option(
        verb, "MODALITY.KEY=VALUE", "[encoder] settings of one modality, e.g. face.frames=16"
    )
    verb.add_argument(
        "--batch",
        default="auto",
        metavar="auto|N",
        help="pictures in one forward pass (auto: halved whenever memory runs out)",
    )
    verb.add_argument(
        "--workers", type=int, default=0, help="videos decoded side by side (default: all cores)"
    )
    verb.add_argument(
        "--resume",
        action="store_true",
        help="go on after an interruption (an extraction always reuses what is finished)",
    )
    verb.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")
