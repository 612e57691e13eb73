"""`mepr-fusion app`."""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from pathlib import Path
from types import FrameType

from mepr_fusion.predict.media_input import Limits
from mepr_fusion.predict.verb import SUFFIXES
from mepr_shared.cli.output import emit_json, say
from mepr_shared.errors import ConfigError

SAMPLES = 8


def run_app(arguments: argparse.Namespace) -> int:
    """Open the app and stay until it is interrupted."""
    samples = sample_clips(arguments.samples) if arguments.samples else []
    with tempfile.TemporaryDirectory(prefix="mepr-app-") as uploads:
        # Uploads go with the app, whatever was left to be deleted by then.
        os.environ["GRADIO_TEMP_DIR"] = uploads
        from mepr_fusion.app.blocks import gradio, offered_devices, serve
        from mepr_fusion.app.service import AppService

        gradio()
        service = AppService(
            arguments.bundle,
            device=arguments.device,
            devices=offered_devices(),
            limits=Limits(arguments.max_seconds, int(arguments.max_mb * 1e6)),
            roots=[Path(uploads), *(path.parent for path in samples)],
            samples=samples,
            speech=arguments.whisper,
        )
        say("loading models")
        predictor = service.predictor()
        predictor.open_ears()
        for name, (_, reason) in predictor.absent.items():
            say(f"without {name}: {reason}")
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            blocks, address = serve(
                service,
                host=arguments.host,
                port=arguments.port,
                share=arguments.share,
                block=False,
            )
        except OSError as error:
            reason = str(error).partition(".")[0]
            raise ConfigError(
                f"port {arguments.port} cannot be opened: {reason}", hint="--port takes another"
            ) from None
        if arguments.json:
            emit_json({"url": address, "bundle": service.bundle.id})
        else:
            say(f"open {address} (Ctrl-C ends it)")
        try:
            blocks.block_thread()
        except KeyboardInterrupt:
            say("closing")
        finally:
            blocks.close(verbose=False)
            service.close()
    return 0


def sample_clips(folder: Path) -> list[Path]:
    """The first few media files of a folder.

    Raises:
        ConfigError: no such folder, or no media in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"no such folder of samples: {folder}")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise ConfigError(f"no media in the folder {folder}")
    return found[:SAMPLES]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
