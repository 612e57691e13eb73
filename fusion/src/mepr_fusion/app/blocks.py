"""The page around the results, its events, and the named endpoints."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mepr_fusion.app import download
from mepr_fusion.app.panels import page
from mepr_fusion.app.service import AppResult, AppService, Options
from mepr_fusion.app.style import PAGE
from mepr_fusion.predict.parts import Progress
from mepr_shared.errors import MeprError, require

AUTOMATIC = "what stands out"
# Uploads are deleted after this many seconds, and looked after as often.
KEEP_S = 1800
_STAGES = {
    "transcribe": "listening for words",
    "look": "looking at faces, bodies and scene",
    "attribute": "finding out what the answer comes from",
}


def gradio() -> Any:
    """Gradio, told before its import that it reports nothing to anybody.

    Raises:
        MissingDependency: it is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    return require("gradio", extra="mepr-fusion[app]")


def build_app(service: AppService) -> Any:
    """The app as `gr.Blocks`; it holds nothing but the service."""
    gr = gradio()
    targets = [AUTOMATIC, *service.targets]
    with gr.Blocks(title="MEPR", analytics_enabled=False, delete_cache=(KEEP_S, KEEP_S)) as blocks:
        gr.Markdown(
            "# Emotions and apparent traits in a video\n"
            "One person, up to "
            f"{service.limits.seconds:.0f} s. Nothing leaves the computer that runs this; uploads "
            "are deleted."
        )
        with gr.Row():
            with gr.Column(scale=3):
                video = gr.Video(
                    label="Video", sources=["upload", "webcam"], include_audio=True, height=300
                )
                with gr.Accordion("A recording of sound, or a picture", open=False):
                    other = gr.File(label="Sound or picture", file_types=["audio", "image"])
            with gr.Column(scale=2):
                target = gr.Dropdown(targets, value=AUTOMATIC, label="Explain")
                modalities = gr.CheckboxGroup(
                    service.modalities, value=service.modalities, label="Modalities"
                )
                with gr.Accordion("More options", open=False):
                    text = gr.Textbox(label="Transcript (heard where empty)", lines=2)
                    frames = gr.Slider(
                        0, 60, value=0, step=1, label="Frames to look at (0: as in training)"
                    )
                    device = gr.Dropdown(
                        list(service.devices), value=service.device, label="Device"
                    )
                run = gr.Button("Analyse", variant="primary", elem_id="run")
        if service.samples:
            gr.Examples(
                [[str(path)] for path in service.samples],
                [video],
                label="Sample clips",
                example_labels=[path.name for path in service.samples],
            )
        shown = gr.HTML(elem_id="results", padding=False, apply_default_css=False)

        def analyse(
            video_path: str | None,
            other_path: str | None,
            chosen: str,
            names: Sequence[str],
            words: str | None,
            count: float | None,
            where: str,
            progress: Any = gr.Progress(),  # noqa: B008  Gradio finds it by its default
        ) -> str:
            options = Options(
                target=None if chosen == AUTOMATIC else chosen,
                modalities=tuple(names or ()),
                frames=int(count or 0) or None,
                text=(words or "").strip() or None,
                device=where,
            )
            path = video_path or other_path
            if not path:
                raise gr.Error("Choose a video first.", print_exception=False)
            result = _guarded(gr, path, lambda: service.answer(path, options, _told(progress)))
            for line in _notices(result):
                gr.Warning(html.escape(line))
            return page(result)

        run.click(
            analyse,
            [video, other, target, modalities, text, frames, device],
            shown,
            api_visibility="private",
            concurrency_limit=1,
            concurrency_id="models",
            show_progress_on=shown,
        )
        _endpoints(gr, service)
    return blocks


def serve(
    service: AppService,
    *,
    host: str = "127.0.0.1",
    port: int | None = 7860,
    share: bool = False,
    block: bool = True,
) -> tuple[Any, str]:
    """Open the app on a port; gives the blocks and the address, at once where not `block`."""
    gr = gradio()
    blocks = build_app(service)
    blocks.queue(default_concurrency_limit=1, max_size=64)
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port,
        share=share,
        prevent_thread_lock=not block,
        quiet=True,
        max_file_size=service.limits.bytes,
        allowed_paths=[str(path.resolve().parent) for path in service.samples],
        theme=gr.themes.Default(
            primary_hue="blue",
            font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
            font_mono=["ui-monospace", "Consolas", "monospace"],
        ),
        css=PAGE,
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
    )
    return blocks, address


def _endpoints(gr: Any, service: AppService) -> None:
    """`/predict`, `/explain` and `/describe`, for `gradio_client`."""
    file = gr.File(visible=False)
    target = gr.Textbox(visible=False)
    text = gr.Textbox(visible=False)
    answer = gr.JSON(visible=False)

    def predict(path: str, words: str = "") -> dict[str, Any]:
        options = Options(text=words or None)
        return download.portable(_guarded(gr, path, lambda: service.predict(path, options)))

    def explain(path: str, chosen: str = "", words: str = "") -> dict[str, Any]:
        options = Options(target=chosen or None, text=words or None)
        return download.record(_guarded(gr, path, lambda: service.answer(path, options)))

    def describe() -> dict[str, Any]:
        return {
            "bundle": service.bundle.id,
            "modalities": service.modalities,
            "targets": service.targets,
            "max_seconds": service.limits.seconds,
            "max_bytes": service.limits.bytes,
        }

    queue = {"concurrency_limit": 1, "concurrency_id": "models"}
    hidden = gr.Button(visible=False)
    hidden.click(predict, [file, text], answer, api_name="predict", **queue)
    hidden.click(explain, [file, target, text], answer, api_name="explain", **queue)
    hidden.click(describe, None, answer, api_name="describe")


def _guarded(gr: Any, path: str, work: Callable[[], Any]) -> Any:
    """Do it; a known problem becomes a toast of one line."""
    try:
        return work()
    except MeprError as error:
        # Where an upload lies, and which option of a command changes what, is of no use here.
        line = error.message.replace(str(path), Path(path).name).replace(str(Path(path)), "")
        raise gr.Error(html.escape(line), print_exception=False) from None


def _told(progress: Any) -> Progress:
    def tell(part: str, done: int, total: int) -> None:
        words = _STAGES.get(part, part.replace("encode", "reading"))
        progress((done, max(total, 1)), desc=words)

    return tell


def _notices(result: AppResult) -> list[str]:
    """What is worth a toast: no person, no speech, no picture."""
    found = []
    for name, answer in result.prediction.modalities.items():
        if answer.status.startswith("no_"):
            found.append(f"{name}: {answer.reason or answer.status.replace('_', ' ')}")
    return found


def offered_devices() -> list[str]:
    """What this machine can run on."""
    import torch

    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found
